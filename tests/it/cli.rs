//! The commands, through the built binary.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::support::http::{get, request};
use super::support::server::Server;
use super::support::{PATIENCE, connect, database, eventually, migrated, new_cluster, scratch};

/// A command whose environment has none of our variables.
fn walclock(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
    command.args(arguments).env_remove("DATABASE_URL").env_remove("WALCLOCK_CONFIG").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
fn run(arguments: &[&str]) -> Output {
    walclock(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder that does not exist yet.
fn fresh() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    scratch().join(format!("cli{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

#[test]
fn the_help_has_examples_and_the_version_is_the_packages() {
    let help = run(&["--help"]);
    assert!(help.status.success() && out(&help).contains("Examples:"), "{}", out(&help));
    for command in
        ["dev", "serve", "migrate", "doctor", "changes", "timers", "schedules", "namespaces", "shards", "completions"]
    {
        assert!(out(&help).contains(&format!("\n  {command}")), "{command}");
        let help = run(&[command, "--help"]);
        assert!(help.status.success() && out(&help).contains("Usage:"), "{command}");
    }
    assert_eq!(out(&run(&["--version"])), format!("walclock {}\n", env!("CARGO_PKG_VERSION")));
    assert!(out(&run(&["completions", "bash"])).contains("complete -F _walclock"));
    assert_eq!(run(&["serve", "--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn wrong_settings_end_with_78_and_one_line() {
    let file = fresh().with_extension("toml");
    std::fs::write(&file, "max-size = 'huge'").unwrap();
    let file = file.to_str().unwrap();
    let url = ["--database-url", "postgres://me:hunter2@127.0.0.1:1/x"];
    for (arguments, expected) in [
        (&["serve", url[0], url[1], "--port", "http"] as &[_], "flag --port: `port` cannot be `http`"),
        (&["serve", url[0], url[1], "--config", file], "`max-size` cannot be `huge`"),
        (&["serve", url[0], url[1], "--config", "/nowhere.toml"], "flag --config: `/nowhere.toml` cannot be read"),
        (&["serve"], "`database-url` is not set"),
        (&["migrate"], "`database-url` is not set"),
        (
            &["doctor", "--database-url", "postgres://me:hunter2@h:port/x"],
            "flag --database-url: `database-url` cannot be",
        ),
        (&["serve", url[0], url[1], "--roles", "dispatcher"], "give `changes-url`"),
        (&["doctor", "--database-url", "mysql://me:hunter2@h/x?a=b"], "expected postgres://"),
        (&["--log", "walclock=loud", "serve", url[0], url[1]], "`log` cannot be `walclock=loud`"),
    ] {
        let output = run(arguments);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let folder = fresh();
    let data = ["--data-dir", folder.to_str().unwrap()];
    let url = database().await;
    let output = run(&["serve", "--database-url", &url, "--port", &port, data[0], data[1]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains(&format!("port {port} of 127.0.0.1 is taken")), "{}", err(&output));
    let output = run(&["dev", "--port", &port, data[0], data[1]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains(&format!("port {port} of 127.0.0.1 is taken")), "{}", err(&output));
}

/// Runs a command to its end, and says its code and the one line that it ended with.
async fn ends(arguments: Vec<String>) -> (Option<i32>, String) {
    let run = move || walclock(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    (output.status.code(), err(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_do_it_is_named_with_what_helps() {
    let empty = database().await;
    let migrated = migrated().await;
    let role = format!("reader_{}", std::process::id());
    let sql = connect(&migrated).await;
    sql.batch_execute(&format!("create role {role} login; grant usage on schema walclock to {role}")).await.unwrap();
    let reader = migrated.replacen("postgres://postgres", &format!("postgres://{role}"), 1);
    let nobody = "postgres://me:hunter2@127.0.0.1:1/x";
    for (command, url, said) in [
        ("timers list", empty.as_str(), "the schema of walclock is missing or old at postgres://"),
        ("schedules list", &empty, "run `walclock migrate`: ERROR: relation \"walclock.schedules\" does not exist"),
        ("namespaces list", &empty, "run `walclock migrate`: ERROR: relation \"walclock.namespaces\" does not exist"),
        ("shards", &empty, "run `walclock migrate`: ERROR: relation \"walclock.shards\" does not exist"),
        ("timers list", &reader, "lacks a right, `walclock doctor` prints those of a server: ERROR: permission denied"),
        ("schedules trigger --id a", &reader, "lacks a right"),
        ("namespaces create n", &reader, "lacks a right"),
        ("shards", &reader, "lacks a right"),
        ("timers list", nobody, "connecting to the database at postgres://me:***@127.0.0.1:1/x?sslmode=prefer: "),
        ("schedules list", nobody, "postgres://me:***@127.0.0.1:1/x"),
        ("migrate", nobody, "postgres://me:***@127.0.0.1:1/x"),
        ("doctor", nobody, "postgres://me:***@127.0.0.1:1/x"),
    ] {
        let arguments = command.split(' ').chain(["--database-url", url]).map(str::to_owned).collect();
        let (code, error) = ends(arguments).await;
        assert_eq!((code, error.lines().count()), (Some(1), 1), "{command}: {error}");
        assert!(error.contains(said) && !error.contains("hunter2"), "{command}: {error}");
    }
}

#[test]
fn what_must_be_chosen_is_named_with_all_its_ways() {
    for (command, ways) in [
        ("schedules next", "<--cron <EXPRESSION>|--every <SPAN>|--id <ID>>"),
        ("schedules create --id a --url http://x/", "<--cron <EXPRESSION>|--every <SPAN>>"),
        ("namespaces rotate n", "<--secret-file <FILE>|--make-secret>"),
        ("timers create --id a --url http://x/", "<--batch <FILE>|--in <SPAN>|--at <TIME>>"),
    ] {
        let output = run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2));
        assert!(err(&output).contains(ways), "{}", err(&output));
    }
    // What is of no use to a command is not among its flags.
    for command in ["migrate", "doctor", "timers", "schedules", "namespaces", "shards"] {
        let help = out(&run(&[command, "--help"]));
        assert!(help.contains("--database-url"), "{help}");
        let of_the_feed = ["--selector-column", "--publication"].map(|flag| help.contains(flag));
        assert_eq!(of_the_feed, [command == "doctor"; 2], "{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_is_harmless_and_a_dry_run_changes_nothing() {
    let url = database().await;
    let migrate = |more: &[&str]| {
        let output = run(&[&["migrate", "--database-url", &url], more].concat());
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    };
    assert!(migrate(&["--dry-run"]).starts_with("would apply "));
    let would = json_lines(&migrate(&["--dry-run", "--json"]));
    assert_eq!((&would[0]["migration"], &would[0]["applied"]), (&"V1__schema".into(), &false.into()));
    assert!(migrate(&[]).starts_with("applied "));
    assert_eq!(migrate(&["--json"]), "");
    assert_eq!(migrate(&[]), "the schema is up to date\n");
    assert_eq!(migrate(&["--dry-run"]), "the schema is up to date\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_what_is_wrong_and_prints_the_sql() {
    let cluster = tokio::task::spawn_blocking(|| new_cluster(&[("wal_level", "replica")])).await.unwrap();
    let output = run(&["doctor", "--database-url", &cluster.url("postgres")]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(out(&output).contains("wal_level"), "{}", out(&output));
    assert!(out(&output).contains("alter system set wal_level"), "{}", out(&output));
    let output = run(&["doctor", "--json", "--database-url", &cluster.url("postgres")]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let findings = json_lines(&out(&output));
    let wal_level = findings.iter().find(|finding| finding["what"].as_str().unwrap().contains("wal_level")).unwrap();
    assert_eq!(wal_level["level"], "error");
    assert!(wal_level["fixSql"].as_str().unwrap().starts_with("alter system set wal_level"), "{wal_level}");

    let url = database().await;
    assert!(run(&["migrate", "--database-url", &url]).status.success());
    let own = "create publication other for table walclock.runs with (publish_via_partition_root = true)";
    connect(&url).await.batch_execute(own).await.unwrap();
    let output = run(&["doctor", "--database-url", &url]);
    assert!(output.status.success() && !out(&output).contains("other"), "{}", out(&output));
    // It judges the publications that are read.
    let output = run(&["doctor", "--database-url", &url, "--publication", "walclock", "--publication", "other"]);
    assert!(out(&output).contains("alter publication other drop table walclock.runs"), "{}", out(&output));
}

/// The blocks of SQL that the page on operations has, ready for this database.
fn documented_sql() -> Vec<String> {
    let page = include_str!("../../docs/operations.md");
    let blocks = page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|sql| sql.replace("database app", "database postgres").replace('…', "secret")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough() {
    let cluster = tokio::task::spawn_blocking(|| new_cluster(&[])).await.unwrap();
    let superuser = connect(&cluster.url("postgres")).await;
    let url = |role: &str| cluster.url("postgres").replace("postgres@", &format!("{role}:secret@"));
    let [owner, others] = documented_sql().try_into().unwrap();
    superuser.batch_execute(&owner).await.unwrap();
    assert!(run(&["migrate", "--database-url", &url("walclock_owner")]).status.success());
    let orders = "create table orders (id int primary key, _change_selector text);
        alter table orders replica identity full;
        select walclock.publish('public.orders')";
    superuser.batch_execute(orders).await.unwrap();
    superuser.batch_execute(&others).await.unwrap();
    let output = run(&["doctor", "--database-url", &url("walclock_server")]);
    assert!(output.status.success(), "{}", out(&output));

    superuser.batch_execute("create role app login; grant app_timers to app").await.unwrap();
    let server = Server::spawn_unmigrated(&url("walclock_server"), &fresh(), &[]);
    server.until_ready().await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                  values ('default', 'a', now(), 'http://127.0.0.1:1/')";
    let app = connect(&url("app")).await;
    app.execute(insert, &[]).await.unwrap();
    let tried = async || {
        let query = "select 1 from walclock.timer_status where id = 'a' and attempts > 0";
        app.query_opt(query, &[]).await.unwrap().map(|_| ())
    };
    eventually(PATIENCE, "its callback has been tried", tried).await;
    let cancel = "delete from walclock.timers where id = 'a'";
    let cancelled = async || (app.execute(cancel, &[]).await.unwrap() == 1).then_some(());
    eventually(PATIENCE, "it is cancelled between two attempts", cancelled).await;
}

/// A `walclock dev` in a folder. It is killed when it is dropped.
struct Dev {
    child: Child,
    folder: PathBuf,
}

impl Dev {
    async fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        // What a killed one has left is not its note.
        let _ = std::fs::remove_file(folder.join("dev.json"));
        let log = File::options().create(true).append(true).open(folder.with_extension("log")).unwrap();
        let child = walclock(&["dev", "--port", "0", "--data-dir", folder.to_str().unwrap()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dev = Self { child, folder: folder.to_owned() };
        let noted = async || {
            let ended = dev.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", std::fs::read_to_string(dev.log()).unwrap());
            dev.folder.join("dev.json").exists().then_some(())
        };
        eventually(PATIENCE, "dev.json is there", noted).await;
        dev
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn note(&self, key: &str) -> String {
        let note = std::fs::read(self.folder.join("dev.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&note).unwrap()[key].as_str().unwrap().to_owned()
    }

    async fn terminate(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = async || self.child.try_wait().unwrap();
        let code = eventually(PATIENCE, "it ends", ended).await.code().unwrap_or(-1);
        assert!(!self.folder.join("dev.json").exists(), "the note is gone");
        code
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Inserts a timer that calls the server's own receiver, and waits until it has arrived.
    async fn fires(&self, id: &str) {
        let sql = connect(&self.note("database_url")).await;
        let callback = format!("{}/dev/echo", self.note("url"));
        let insert =
            "insert into walclock.timers (namespace, id, execute_at, callback_url) values ('dev', $1, now(), $2)";
        sql.execute(insert, &[&id, &callback]).await.unwrap();
        let echoed = async || {
            let heard = get(&self.note("url"), "/dev/echo", &[]).await;
            String::from_utf8_lossy(&heard.body).contains(id).then_some(())
        };
        eventually(PATIENCE, &format!("{id} arrives"), echoed).await;
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_works_at_once_and_finds_its_data_again() {
    let folder = fresh();
    let dev = Dev::start(&folder).await;
    let ready = get(&dev.note("url"), "/ready?verbose", &[]).await;
    let said = String::from_utf8_lossy(&ready.body).into_owned();
    assert!(ready.status == 200 && !said.contains("has not told its time yet"), "{said}");
    dev.fires("first").await;
    let create = serde_json::json!({"namespace": "new", "id": "later", "executeAt": "2100-01-01T00:00:00Z",
        "callbackUrl": format!("{}/dev/echo", dev.note("url"))});
    let headers = [("content-type", "application/json")];
    let answer = request("POST", &dev.note("url"), "/api/v1/timers/create", &headers, &create.to_string()).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let sql = connect(&dev.note("database_url")).await;
    sql.execute("insert into notes (_change_selector, body) values ('demo', 'one')", &[]).await.unwrap();
    let url = dev.note("url");
    let listed = async || {
        let output = run(&["changes", "--scope", "demo", "--url", &url]);
        assert!(output.status.success(), "{}", err(&output));
        out(&output).contains("insert public.notes").then_some(())
    };
    eventually(PATIENCE, "the note is in the feed", listed).await;

    let second = run(&["dev", "--data-dir", folder.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains(&format!("is in use by the walclock at {url}")), "{}", err(&second));

    assert_eq!(dev.terminate().await, 0);
    let dev = Dev::start(&folder).await;
    let sql = connect(&dev.note("database_url")).await;
    let pending = sql.query_one("select count(*) from walclock.timers where id = 'later'", &[]).await.unwrap();
    assert_eq!(pending.get::<_, i64>(0), 1);
    let journal = run(&["changes", "--scope", "demo", "--json", "--url", &dev.note("url")]);
    assert_eq!(out(&journal).lines().count(), 1, "{}", out(&journal));
    dev.fires("second").await;

    dev.kill();
    let dev = Dev::start(&folder).await;
    dev.fires("third").await;
    assert_eq!(dev.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_ends_when_its_postgresql_does_and_says_so() {
    let mut dev = Dev::start(&fresh()).await;
    let postgresql = dev.folder.canonicalize().unwrap().join("postgresql");
    let postmaster = std::fs::read_to_string(postgresql.join("data/postmaster.pid")).unwrap();
    let postmaster = rustix::process::Pid::from_raw(postmaster.lines().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(postmaster, rustix::process::Signal::KILL).unwrap();
    let ended = async || dev.child.try_wait().unwrap();
    assert_eq!(eventually(PATIENCE, "it ends", ended).await.code(), Some(1));
    let (log, its_log) = (std::fs::read_to_string(dev.log()).unwrap(), postgresql.join("postgresql.log"));
    let said = format!("PostgreSQL has ended by itself (exit status: 137); its log is {}", its_log.display());
    assert!(log.trim_end().ends_with(&said), "{log}");
    assert!(!dev.folder.join("dev.json").exists(), "the note is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_skipped_also_behind_many_truncates() {
    let url = database().await;
    let server = Server::start(&url, &super::support::server::folder()).await;
    let sql = connect(&url).await;
    let setup = "create table notes (id int primary key, _change_selector text);
        alter table notes replica identity full; select walclock.publish('notes')";
    sql.batch_execute(setup).await.unwrap();
    // They go to the readers of every scope, and are more than a page of them.
    sql.batch_execute(&"truncate notes;".repeat(120)).await.unwrap();
    sql.batch_execute("insert into notes values (1, 'demo')").await.unwrap();
    let base = server.url();
    let changes = |since: &[&str]| {
        let output = run(&[&["changes", "--scope", "demo", "--url", &base], since].concat());
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    };
    let all =
        async || changes(&[]).ends_with(" insert public.notes id=\"1\" _change_selector=\"demo\"\n").then_some(());
    eventually(PATIENCE, "all of it is in the feed", all).await;
    assert_eq!(changes(&["--since", "now"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_flag_is_told_with_what_it_may_be() {
    let server = Server::start(&database().await, &super::support::server::folder()).await;
    let refused = run(&["changes", "--since", "then", "--url", &server.url()]);
    let said = "400 PARAMETER_INVALID: since must be a sequence as an answer has it";
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains(said) && err(&refused).contains(", not 'then'"), "{}", err(&refused));
}
