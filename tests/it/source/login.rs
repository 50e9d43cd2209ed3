//! Logging in, TLS, and what is said when it does not work.

use std::path::{Path, PathBuf};
use std::process::Command;

use walclock::feed::source::{Connection, Error, Server};
use walclock::localpg::Cluster;
use walclock::pg::Settings;

use crate::support;

const HBA: &str = "
host all postgres 127.0.0.1/32 trust
host all by_md5 127.0.0.1/32 md5
host all by_scram 127.0.0.1/32 scram-sha-256
host all no_replication 127.0.0.1/32 trust
hostssl all by_clear 127.0.0.1/32 password
hostnossl all by_clear 127.0.0.1/32 password
hostssl all only_tls 127.0.0.1/32 scram-sha-256
";

const USERS: &str = "
set password_encryption = 'md5';
create role by_md5 login replication password 'Pä ss''1';
set password_encryption = 'scram-sha-256';
create role by_scram login replication password 'Pä ss''1';
create role by_clear login replication password 'Pä ss''1';
create role only_tls login replication password 'Pä ss''1';
create role no_replication login;
create role no_line login replication;
alter system set ssl = on;
select pg_reload_conf()";

/// The password above, as it stands in a URL.
const PASSWORD: &str = "P%C3%A4%20ss%271";

/// A cluster with TLS and the users above. `ca.pem` and `other.pem` are in its folder; its certificate is for
/// `localhost` alone.
async fn cluster() -> Cluster {
    let cluster = tokio::task::spawn_blocking(|| {
        let cluster = support::new_cluster(&[]);
        make_certificates(&cluster.data());
        std::fs::write(cluster.data().join("pg_hba.conf"), HBA).unwrap();
        cluster
    });
    let cluster = cluster.await.unwrap();
    let client = support::connect(&cluster.url("postgres")).await;
    for statement in USERS.split_inclusive(';') {
        client.batch_execute(statement).await.unwrap();
    }
    support::eventually(super::PATIENCE, "TLS is on", async || {
        let url = format!("{}?sslmode=require", cluster.url("postgres"));
        Server::connect(&Settings::parse(&url).unwrap()).await.ok()
    })
    .await;
    cluster
}

fn make_certificates(data: &Path) {
    let script = "
        for ca in ca other; do
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.pem
        done
        openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost' > extensions
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt
        chmod 600 server.key
        chown --reference=. server.key server.crt";
    let made = Command::new("sh").arg("-ec").arg(script).current_dir(data).output().unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}

/// Connects in both ways with these settings; says whether each connection is encrypted.
async fn try_both(url: &str) -> Result<[bool; 2], Error> {
    let settings = Settings::parse(url)?;
    let server = Server::connect(&settings).await?;
    server.facts().await?;
    let mut connection = Connection::open(&settings).await?;
    connection.identify().await?;
    // As the server sees both: the superuser's own connection is not among them.
    let admin = support::connect(&format!("postgres://postgres@127.0.0.1:{}/postgres", port(&settings))).await;
    let user = settings.config().get_user().unwrap();
    let sql = "select backend_type = 'walsender', ssl from pg_stat_activity join pg_stat_ssl using (pid)
               where usename = $1 and pid <> pg_backend_pid() order by 1";
    // Those of an earlier round may still be about to end.
    let both = async || {
        let rows = admin.query(sql, &[&user]).await.unwrap();
        rows.iter().map(|row| row.get(1)).collect::<Vec<bool>>().try_into().ok()
    };
    Ok(support::eventually(super::PATIENCE, "it has two connections", both).await)
}

fn port(settings: &Settings) -> u16 {
    settings.config().get_ports()[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_log_in_and_each_tls_mode() {
    let cluster = cluster().await;
    let port = cluster.port();
    let file = |name: &str| -> PathBuf { cluster.data().join(name) };
    let (ca, other) = (file("ca.pem"), file("other.pem"));
    let (ca, other) = (ca.display(), other.display());
    for (user, host, options, encrypted) in [
        ("by_md5", "127.0.0.1", "sslmode=disable".to_owned(), false),
        ("by_scram", "127.0.0.1", "sslmode=disable".to_owned(), false),
        ("by_scram", "127.0.0.1", String::new(), true),
        ("by_scram", "127.0.0.1", "channel_binding=require".to_owned(), true),
        ("by_scram", "127.0.0.1", "channel_binding=disable".to_owned(), true),
        ("by_clear", "127.0.0.1", "sslmode=require".to_owned(), true),
        ("only_tls", "127.0.0.1", "sslmode=require".to_owned(), true),
        ("only_tls", "127.0.0.1", format!("sslmode=require&sslrootcert={ca}"), true),
        ("only_tls", "127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), true),
        ("only_tls", "localhost", format!("sslmode=verify-full&sslrootcert={ca}"), true),
    ] {
        let url = format!("postgres://{user}:{PASSWORD}@{host}:{port}/postgres?{options}");
        let found = try_both(&url).await.unwrap_or_else(|error| panic!("{user} at {host} with {options}: {error}"));
        assert_eq!(found, [encrypted; 2], "{user} at {host} with {options}");
    }
    for (host, options) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}")),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}")),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned()),
    ] {
        let url = format!("postgres://only_tls:{PASSWORD}@{host}:{port}/postgres?{options}");
        let settings = Settings::parse(&url).unwrap();
        for failed in [Server::connect(&settings).await.err(), Connection::open(&settings).await.err()] {
            let no_roots = matches!(failed, Some(Error::Settings(_))) && options.contains("system");
            assert!(no_roots || matches!(failed, Some(Error::Tls { .. })), "{host} with {options}: {failed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_explained_in_one_line() {
    let cluster = cluster().await;
    let port = cluster.port();
    for (user, options, parts) in [
        ("by_scram:wrong", "", ["28P01", "check user and password"]),
        ("by_md5:wrong", "", ["28P01", "check user and password"]),
        ("by_scram", "", ["password", ""]),
        ("no_line", "", ["pg_hba.conf", "add a line"]),
        ("only_tls:Psecret", "sslmode=disable", ["pg_hba.conf", "add a line"]),
        ("no_replication", "", ["42501", "alter role"]),
        ("by_scram:x", "sslmode=disable&channel_binding=require", ["channel", "binding"]),
    ] {
        let url = format!("postgres://{user}@127.0.0.1:{port}/postgres?{options}");
        let error = Connection::open(&Settings::parse(&url).unwrap()).await.err().unwrap();
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{user} {options}: {text}");
        assert!(!error.may_heal() && !text.contains('\n') && !text.contains("Psecret"), "{user}: {text}");
    }
    let url = format!("postgres://by_clear:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable");
    let error = Connection::open(&Settings::parse(&url).unwrap()).await.err().unwrap();
    assert!(matches!(error, Error::Authentication { .. }), "a password in the clear: {error}");
    let url = format!("postgres://postgres@127.0.0.1:{port}/nowhere");
    let error = Server::connect(&Settings::parse(&url).unwrap()).await.err().unwrap();
    assert!(error.to_string().contains("check the database"), "{error}");
    assert!(!error.may_heal());
}

/// The whole program, where PostgreSQL takes nothing without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_changeserver_streams_over_tls_where_the_server_asks_for_it() {
    let cluster = cluster().await;
    let client = super::publish_notes(&cluster.url("postgres")).await;
    support::server::migrate(&cluster.url("postgres"));
    client.batch_execute("alter role only_tls superuser").await.unwrap();
    let url =
        |mode: &str| format!("postgres://only_tls:{PASSWORD}@127.0.0.1:{}/postgres?sslmode={mode}", cluster.port());
    let flags = ["--roles", "changeserver", "--publication", "feed"];
    let folder = support::server::folder();
    let plain = support::server::Server::spawn_unmigrated(&url("disable"), &folder, &flags);
    support::eventually(super::PATIENCE, "it is told why not", async || {
        plain.log().contains("pg_hba.conf").then_some(())
    })
    .await;
    drop(plain);
    let server = support::server::Server::spawn_unmigrated(&url("require"), &folder, &flags);
    server.until_ready().await;
    client.batch_execute("insert into notes values (1, 'b', 's')").await.unwrap();
    let (status, page) = server.get("/changes?scope=s&block=30").await;
    assert_eq!((status, &page["changes"][0]["newRow"]["body"]["value"]), (200, &"b".into()), "{page}");
    let sql = "select backend_type, ssl from pg_stat_activity join pg_stat_ssl using (pid) where usename = 'only_tls'";
    let sessions = client.query(sql, &[]).await.unwrap();
    assert!(sessions.iter().any(|row| row.get::<_, &str>(0) == "walsender"));
    assert!(sessions.iter().all(|row| row.get(1)), "a connection without TLS");
    assert_eq!(server.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls() {
    let url = support::database().await;
    for (mode, works) in [("prefer", true), ("require", false), ("verify-ca", false)] {
        let root = if mode == "verify-ca" { "&sslrootcert=/dev/null" } else { "" };
        let settings = Settings::parse(&format!("{url}?sslmode={mode}")).unwrap();
        assert_eq!(Connection::open(&settings).await.is_ok(), works, "{mode}");
        if mode == "require" {
            assert!(matches!(Connection::open(&settings).await, Err(Error::NoTls { .. })));
            assert!(matches!(Server::connect(&settings).await, Err(Error::NoTls { .. })));
        }
        if !root.is_empty() {
            let settings = Settings::parse(&format!("{url}?sslmode={mode}{root}")).unwrap();
            let error = Server::connect(&settings).await.err().unwrap().to_string();
            assert!(error.contains("sslrootcert=/dev/null"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_may_come() {
    let port = walclock::localpg::free_port().unwrap();
    let settings = Settings::parse(&format!("postgres://u@127.0.0.1:{port}/d")).unwrap();
    for error in [Server::connect(&settings).await.err().unwrap(), Connection::open(&settings).await.err().unwrap()] {
        assert!(matches!(error, Error::Connect { .. }) && error.may_heal(), "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}

/// The next host, or the next attempt, gets its chance.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = frozen.local_addr().unwrap().port();
    let settings = Settings::parse(&format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=1")).unwrap();
    let connecting = tokio::time::timeout(super::PATIENCE, Server::connect(&settings));
    let error = connecting.await.expect("it gives up").err().unwrap();
    assert!(matches!(error, Error::Unanswered { .. }) && error.may_heal(), "{error}");
}
