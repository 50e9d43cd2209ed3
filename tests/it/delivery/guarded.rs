//! What a callback may not reach, whatever its URL or a name server says; and that TLS knows whom it speaks to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls;
use walclock::clock::Clock;
use walclock::delivery::{Client, Config, Resolver};
use walclock::dispatch::ports::Delivery;
use walclock::domain::callback::Verdict;

use super::receiver::{Act, Receiver, answer, ok};
use super::{error, is_retry, run};

/// The name server of a test: its n-th answer is the n-th list, then the last one for ever.
fn resolver(answers: Vec<Vec<&str>>) -> (Resolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answers: Vec<Vec<std::net::IpAddr>> =
        answers.into_iter().map(|list| list.into_iter().map(|address| address.parse().unwrap()).collect()).collect();
    let resolver: Resolver = Arc::new(move |_, port| {
        let number = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let addresses = answers[number].iter().map(|address| SocketAddr::new(*address, port)).collect();
        Box::pin(async move { Ok(addresses) })
    });
    (resolver, asked)
}

fn client(allow: &[&str], answers: Vec<Vec<&str>>) -> Client {
    let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
    Client::with_resolver(Config { allow, ..Config::default() }, Clock::system(), resolver(answers).0)
}

fn is_blocked(verdict: &Verdict) -> bool {
    *verdict
        == Verdict::Failed { error: "blocked address: it is not public, and no --callback-allow opens it".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_not_called_however_it_is_written() {
    let mut receiver = Receiver::start(|_, _| ok()).await;
    let client = client(&[], vec![vec!["127.0.0.1"], vec!["::1"], vec!["::ffff:127.0.0.1"]]);
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[::1]",
        "0.0.0.0",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "169.254.169.254",
    ] {
        let made = client.attempt(&run(&format!("http://{host}:{}/", receiver.port))).await.unwrap();
        assert!(is_blocked(&made.verdict) && made.status.is_none(), "{host}: {made:?}");
    }
    let by_the_machine = Client::new(Config::default(), Clock::system());
    let made = by_the_machine.attempt(&run(&format!("http://localhost:{}/", receiver.port))).await.unwrap();
    assert!(is_blocked(&made.verdict), "{made:?}");
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
    assert_eq!(receiver.requests_left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_range_is_called_by_address_and_by_name() {
    let receiver = Receiver::start(|_, _| ok()).await;
    let client = client(&["127.0.0.1/32"], vec![vec!["127.0.0.1"]]);
    for host in ["127.0.0.1", "127.1", "receiver.test"] {
        let made = client.attempt(&run(&format!("http://{host}:{}/", receiver.port))).await.unwrap();
        assert_eq!(made.verdict, Verdict::Succeeded, "{host}");
    }
    let made = client.attempt(&run(&format!("http://127.0.0.2:{}/", receiver.port))).await.unwrap();
    assert!(is_blocked(&made.verdict), "the next address is not in the range: {made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_forbidden_answer_spoils_a_name() {
    let receiver = Receiver::start(|_, _| ok()).await;
    for answers in [vec!["127.0.0.1", "10.0.0.1"], vec!["10.0.0.1", "127.0.0.1"], vec!["127.0.0.1", "fd00::1"]] {
        let made = client(&["127.0.0.1/32"], vec![answers])
            .attempt(&run(&format!("http://mixed.test:{}/", receiver.port)))
            .await
            .unwrap();
        assert!(is_blocked(&made.verdict), "{made:?}");
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

/// A name that is good when it is looked at and bad when it is called: each connection goes to the address that was
/// checked for it, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let receiver =
        Receiver::start(|_, _| Act::SendAndClose(answer(200, "connection: close\r\n", r#"{"ok":true}"#))).await;
    let (resolver, asked) = resolver(vec![vec!["127.0.0.1"], vec!["127.0.0.2"]]);
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    let config = Config { allow, name_age_max: Duration::ZERO, ..Config::default() };
    let client = Client::with_resolver(config, Clock::system(), resolver);
    let run = run(&format!("http://rebinding.test:{}/", receiver.port));

    assert_eq!(client.attempt(&run).await.unwrap().verdict, Verdict::Succeeded);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "asked once for one connection");
    assert!(is_blocked(&client.attempt(&run).await.unwrap().verdict));
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_tried_where_one_is_dead() {
    let receiver = Receiver::start(|_, _| ok()).await;
    let client = client(&["127.0.0.0/8"], vec![vec!["127.0.0.9", "127.0.0.1"]]);
    let made = client.attempt(&run(&format!("http://two.test:{}/", receiver.port))).await.unwrap();
    assert_eq!(made.verdict, Verdict::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_an_address_is_tried_again() {
    let made = client(&[], vec![vec![]]).attempt(&run("http://nobody.test/")).await.unwrap();
    assert!(is_retry(&made) && error(&made).contains("host not found") && !made.connected, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_none_fails_the_timer() {
    let client = client(&["127.0.0.0/8"], vec![vec!["127.0.0.1"]]);
    let long = format!("http://example.test/{}", "a".repeat(2048));
    for url in [
        "",
        "/hook",
        "ftp://example.test/",
        "file:///etc/passwd",
        "http://user@example.test/",
        "http://:x@a.test/",
        &long,
    ] {
        let made = client.attempt(&run(url)).await.unwrap();
        assert_eq!(made.verdict, Verdict::Failed { error: "callback URL not allowed".to_owned() }, "{url}");
    }
}

/// The server's side of TLS for `receiver.test`, and the certificate that a client must trust for it.
fn tls() -> (tokio_rustls::TlsAcceptor, rustls::pki_types::CertificateDer<'static>) {
    let certificate = rustls::pki_types::CertificateDer::from(&include_bytes!("receiver.cert.der")[..]);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(&include_bytes!("receiver.key.der")[..]);
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    (Arc::new(config).into(), certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_to_the_server_that_the_url_names_and_to_no_other() {
    let (acceptor, certificate) = tls();
    let mut receiver = Receiver::start_with(Some(acceptor), |_, _| ok()).await;
    let client = |roots| {
        let config = Config { allow: vec!["127.0.0.0/8".parse().unwrap()], roots, ..Config::default() };
        Client::with_resolver(config, Clock::system(), resolver(vec![vec!["127.0.0.1"]]).0)
    };
    let url = |host: &str| format!("https://{host}:{}/", receiver.port);
    let (good, dotted, other) = (url("receiver.test"), url("receiver.test."), url("other.test"));

    for (url, roots) in [(&good, vec![]), (&other, vec![certificate.clone()])] {
        let made = client(roots).attempt(&run(url)).await.unwrap();
        assert!(is_retry(&made) && error(&made).contains("certificate") && !made.connected, "{url}: {made:?}");
    }
    assert_eq!(receiver.requests_left(), 0);

    let client = client(vec![certificate]);
    for url in [&good, &dotted, &good] {
        let made = client.attempt(&run(url)).await.unwrap();
        assert_eq!(made.verdict, Verdict::Succeeded, "{url}: {made:?}");
    }
    let hosts = [receiver.request().await, receiver.request().await, receiver.request().await];
    assert_eq!(hosts[0].headers["host"], format!("receiver.test:{}", receiver.port));
    assert_eq!(hosts[0].connection, hosts[2].connection, "a TLS connection is kept too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&answer(400, "", "")).await.unwrap();
    });
    let client = client(&["127.0.0.0/8"], vec![vec!["127.0.0.1"]]);
    let made = client.attempt(&run(&format!("https://plain.test:{port}/"))).await.unwrap();
    assert!(is_retry(&made) && made.status.is_none(), "{made:?}");
}
