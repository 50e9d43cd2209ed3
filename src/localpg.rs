//! A private PostgreSQL in a folder: for `walclock dev`, the tests and the benches. Never for production.
//!
//! It listens on 127.0.0.1 and a free port, which it has again at the next start on the folder, trusts its local clients, and
//! works for root too, by running PostgreSQL as another user (initdb refuses root). A small shell stands between this process
//! and PostgreSQL and stops it as soon as this process is gone, however it went.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long PostgreSQL may take to start: recovery after a crash can take a while on a slow disk.
const START_MAX: Duration = Duration::from_secs(60);
/// Where a free port is looked for, and how often.
const FREE_PORTS: std::ops::Range<u16> = 10_000..30_000;
const FREE_PORT_TRIES: usize = 100;
/// The shell that owns PostgreSQL: it ends it (fast shutdown) when its input closes, which happens when we are gone, and
/// ends itself when PostgreSQL has. A signal that comes before PostgreSQL listens for it is lost, hence the loop.
const GUARD: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null & pid=$!
{ cat <&3 >/dev/null; while kill -INT $pid 2>/dev/null; do sleep 0.1; done; } & watch=$!
wait $pid; code=$?
kill $watch 2>/dev/null
exit $code"#;

/// Why there is no private PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no PostgreSQL server on this machine.
    #[error(
        "no PostgreSQL server programs found in PATH or /usr/lib/postgresql: run `apt-get install postgresql`, or name their folder in WALCLOCK_PG_BIN"
    )]
    NotInstalled,
    /// This process is root, and there is nobody else to run PostgreSQL as.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody` to run it as"
    )]
    NoUser,
    /// PostgreSQL would run as another user, who cannot get to the folder.
    #[error(
        "PostgreSQL refuses to run as root, and the user it runs as instead cannot enter {}: choose another folder, such as one in /var/lib", folder.display()
    )]
    Closed {
        /// The folder on the way that is closed to others.
        folder: PathBuf,
    },
    /// A file or a program failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// initdb or PostgreSQL itself gave up; its last words.
    #[error("{program} failed: {output}")]
    Program {
        /// Which program.
        program: &'static str,
        /// The end of what it printed.
        output: String,
    },
}

/// Where and how a private PostgreSQL runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder for everything; made if it is missing.
    pub folder: PathBuf,
    /// Where `initdb` and `postgres` are; none looks in PATH and Debian's place.
    pub programs: Option<PathBuf>,
    /// Further settings, name and value, for the command line.
    pub settings: Vec<(String, String)>,
}

/// A running private PostgreSQL. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    port: u16,
    guard: Option<(Child, ChildStdin)>,
}

impl Cluster {
    /// Makes the cluster if the folder has none, and starts it. What a crash left behind is recovered.
    pub fn start(config: Config) -> Result<Self, Error> {
        let programs = match &config.programs {
            Some(folder) => folder.clone(),
            None => find_programs().ok_or(Error::NotInstalled)?,
        };
        let user = unprivileged_user()?;
        fs::create_dir_all(&config.folder).map_err(io_error(format!("making {}", config.folder.display())))?;
        if let Some((uid, gid)) = user {
            enterable(&config.folder, uid, gid)?;
            std::os::unix::fs::chown(&config.folder, Some(uid), Some(gid))
                .map_err(io_error(format!("giving {} to the user of PostgreSQL", config.folder.display())))?;
        }
        let mut cluster = Self { config, port: 0, guard: None };
        if !cluster.data().join("PG_VERSION").exists() {
            cluster.initdb(&programs, user)?;
        }
        cluster.stop_stray();
        cluster.launch(&programs, user)?;
        Ok(cluster)
    }

    /// The URL of a database in it, for its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// How to call psql: by name where it is in PATH, else by its place among PostgreSQL's programs.
    pub fn psql(&self) -> Option<PathBuf> {
        let programs = self.config.programs.clone().or_else(find_programs);
        match search_path().any(|folder| folder.join("psql").exists()) {
            true => Some(PathBuf::from("psql")),
            false => programs.map(|folder| folder.join("psql")).filter(|psql| psql.exists()),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with its data.
    pub fn data(&self) -> PathBuf {
        self.config.folder.join("data")
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.config.folder.join("postgresql.log")
    }

    /// Stops it in the orderly way: clients are cut off, what is written stays.
    pub fn stop(&mut self) {
        if let Some((mut guard, input)) = self.guard.take() {
            drop(input);
            let _ = guard.wait();
        }
    }

    /// How it ended, where nobody stopped it and it does not run any more.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.as_mut().and_then(|(guard, _)| guard.try_wait().ok().flatten())
    }

    /// Ends it as a crash would (immediate shutdown).
    pub fn crash(&mut self) {
        if let Some(pid) = postmaster_pid(&self.data()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        self.stop();
    }

    /// Starts it again after [`Cluster::stop`] or [`Cluster::crash`], on the same port.
    pub fn restart(&mut self) -> Result<(), Error> {
        let programs = match &self.config.programs {
            Some(folder) => folder.clone(),
            None => find_programs().ok_or(Error::NotInstalled)?,
        };
        self.launch(&programs, unprivileged_user()?)
    }

    fn initdb(&self, programs: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.arg("--pgdata").arg(self.data());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        as_user(&mut initdb, user);
        let output =
            initdb.current_dir("/").output().map_err(io_error(format!("running initdb of {}", programs.display())))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::Program { program: "initdb", output: tail(&output.stderr) }),
        }
    }

    fn launch(&mut self, programs: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
        let logged = fs::metadata(self.log()).map_or(0, |found| found.len());
        self.spawn(programs, user)?;
        self.wait_until_ready(logged)
    }

    fn spawn(&mut self, programs: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
        if self.port == 0 {
            self.port = self.choose_port()?;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(io_error("opening PostgreSQL's log".to_owned()))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(programs.join("postgres")).arg("-D").arg(self.data());
        for (name, value) in self.settings() {
            shell.arg("-c").arg(format!("{name}={value}"));
        }
        as_user(&mut shell, user);
        // A group of its own, so that Ctrl-C at the terminal reaches us first and PostgreSQL last.
        shell.process_group(0).current_dir("/").stdin(Stdio::piped());
        shell.stdout(log.try_clone().map_err(io_error("opening PostgreSQL's log".to_owned()))?).stderr(log);
        let mut guard = shell.spawn().map_err(io_error("starting PostgreSQL".to_owned()))?;
        let input = guard.stdin.take().expect("its input is piped");
        self.guard = Some((guard, input));
        Ok(())
    }

    /// The port of the start before, or another one where somebody has taken it meanwhile; noted for the next start.
    fn choose_port(&self) -> Result<u16, Error> {
        let note = self.config.folder.join("port");
        // A note that cannot be read is as none.
        let noted: Option<u16> = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok());
        if let Some(port) = noted.filter(|port| is_free(*port)) {
            return Ok(port);
        }
        let port = free_port()?;
        if let Some(noted) = noted {
            tracing::warn!(
                "port {noted}, where this PostgreSQL was before, is taken: it listens on {port} from now on"
            );
        }
        fs::write(&note, format!("{port}\n")).map_err(io_error(format!("writing {}", note.display())))?;
        Ok(port)
    }

    fn settings(&self) -> Vec<(String, String)> {
        let own = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", String::new()),
            ("wal_level", "logical".to_owned()),
            ("max_wal_senders", "20".to_owned()),
            ("max_replication_slots", "20".to_owned()),
            ("max_connections", "200".to_owned()),
        ];
        own.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(self.config.settings.iter().cloned())
            .collect()
    }

    /// Waits until postmaster.pid says "ready" in its eighth line. What the log says up to `logged` is of another run.
    fn wait_until_ready(&mut self, logged: u64) -> Result<(), Error> {
        let deadline = Instant::now() + START_MAX;
        let pid_file = self.data().join("postmaster.pid");
        loop {
            let status = fs::read_to_string(&pid_file).unwrap_or_default();
            if status.lines().nth(7).is_some_and(|line| line.trim() == "ready")
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            {
                return Ok(());
            }
            if self.ended().is_some() || Instant::now() > deadline {
                self.stop();
                let log = fs::read(self.log()).unwrap_or_default();
                let own = usize::try_from(logged).ok().and_then(|logged| log.get(logged..));
                return Err(Error::Program { program: "postgres", output: tail(own.unwrap_or_default()) });
            }
            pause();
        }
    }

    /// Ends a PostgreSQL that still runs on the folder although its walclock is gone.
    fn stop_stray(&self) {
        let deadline = Instant::now() + START_MAX;
        while let Some(pid) = postmaster_pid(&self.data()) {
            let ours = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| {
                let data = self.data();
                line.split(|b| *b == 0).any(|word| word == data.as_os_str().as_encoded_bytes())
            });
            if !ours || Instant::now() > deadline {
                return;
            }
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            pause();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port on 127.0.0.1 that nobody listens on at this moment. It lies below those that systems give to connections, as any of
/// these could be taken again before it is listened on. Who asks again gets another one, also where nobody listens on the first yet.
pub fn free_port() -> Result<u16, Error> {
    static LAST: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    let next = || FREE_PORTS.start + LAST.fetch_add(1, Ordering::Relaxed) % (FREE_PORTS.end - FREE_PORTS.start);
    if let Some(port) = (0..FREE_PORT_TRIES).map(|_| next()).find(|port| is_free(*port)) {
        return Ok(port);
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(any.map_err(io_error("looking for a free port".to_owned()))?.port())
}

#[expect(clippy::disallowed_methods, reason = "another process is being waited for, and it has no signal to give")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// The programs of the newest PostgreSQL of this machine.
pub fn find_programs() -> Option<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort();
    let debian = debian.into_iter().rev().map(|(_, folder)| folder);
    debian.chain(search_path()).find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// The folders of PATH.
fn search_path() -> impl Iterator<Item = PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "PATH is the operating system's, not a setting")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// For root, the user and group to run PostgreSQL as.
fn unprivileged_user() -> Result<Option<(u32, u32)>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(io_error("reading /etc/passwd".to_owned()))?;
    let find = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or(Error::NoUser)
}

/// Checks that this user may enter every folder above this one.
fn enterable(folder: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let folder = fs::canonicalize(folder).map_err(io_error(format!("finding {}", folder.display())))?;
    for above in folder.ancestors().skip(1) {
        let found = fs::metadata(above).map_err(io_error(format!("looking at {}", above.display())))?;
        let bit = match (found.uid() == uid, found.gid() == gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if found.mode() & bit == 0 {
            return Err(Error::Closed { folder: above.to_owned() });
        }
    }
    Ok(())
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
}

/// The postmaster of a data folder, if it is alive.
fn postmaster_pid(data: &Path) -> Option<rustix::process::Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = rustix::process::Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    rustix::process::test_kill_process(pid).is_ok().then_some(pid)
}

/// Whether nobody listens on this port of 127.0.0.1 at this moment.
fn is_free(port: u16) -> bool {
    port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.trim().lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn io_error(doing: String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> Config {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = vec![("fsync".to_owned(), "off".to_owned())];
        Config { folder: folder.join("pg"), programs: None, settings }
    }

    /// The log of the run before ends in FATAL lines, as it does when clients are cut off.
    #[test]
    fn it_starts_again_whatever_the_log_says_and_says_why_when_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(config(folder.path())).unwrap();
        cluster.stop();
        fs::write(cluster.log(), "FATAL:  terminating connection due to administrator command\n".repeat(5)).unwrap();
        cluster.restart().unwrap();
        cluster.crash();
        cluster.config.settings.push(("shared_buffers".to_owned(), "none".to_owned()));
        let error = cluster.restart().unwrap_err().to_string();
        assert!(error.contains("shared_buffers") && !error.contains("administrator"), "{error}");
    }

    #[test]
    fn a_folder_keeps_its_port_until_somebody_else_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        // Below those that other tests are given.
        let port = std::iter::repeat_with(|| fastrand::u16(5_000..10_000)).find(|port| is_free(*port)).unwrap();
        let note = config.folder.join("port");
        fs::create_dir(&config.folder).unwrap();
        fs::write(&note, port.to_string()).unwrap();
        let start = || Cluster::start(config.clone()).unwrap().port();
        assert_eq!([start(), start()], [port, port]);

        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let other = start();
        assert_ne!(other, port);
        assert_eq!(fs::read_to_string(&note).unwrap().trim(), other.to_string());
    }

    #[test]
    fn one_that_is_let_go_while_it_starts_ends_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(config(folder.path())).unwrap();
        for _ in 0..5 {
            cluster.stop();
            let programs = find_programs().unwrap();
            let user = unprivileged_user().unwrap();
            cluster.spawn(&programs, user).unwrap();
            cluster.stop();
            assert!(postmaster_pid(&cluster.data()).is_none());
        }
    }
}
