//! The newest 100 changes of fifty scopes beside those of one, with more and more changes of the fifty stored before
//! them.

use std::time::Instant;

use crate::crowd::{Crowd, last_sequence};
use crate::support::{Connection, Database, Server, quantile, size};
use crate::verdict::{Target, Verdict};

const READS: usize = 500;
const ROUNDS: usize = 3;

pub async fn run() -> Vec<Verdict> {
    let most = size("ROWS", 1_000_000);
    let stored = [most / 100, most / 10, most];
    let database = Database::start(&[("max_wal_size", "8GB")]);
    let server = Server::start_feed(&database).await;
    let client = database.connect().await;
    let table = "create table rows (id int generated always as identity primary key, _change_selector text, body text);
        alter table rows replica identity full;
        select walclock.publish('rows')";
    client.batch_execute(table).await.expect("a table");
    let insert = "insert into rows (_change_selector, body) select $1 || case when $2 then (n % 50)::text else '' end,
        repeat('x', 200) from generate_series(1, $3::int) n";
    let insert = client.prepare(insert).await.expect("a statement");

    println!("the newest 100 changes of 50 scopes and of 1, µs for each call");
    let fifty: String = (0..50).map(|n| format!("scope=many-{n}&")).collect();
    let (mut there, mut costs) = (0, Vec::new());
    for goal in stored {
        while there < goal {
            client.execute(&insert, &[&"many-", &true, &1000]).await.expect("rows");
            there += 1000;
        }
        let since = newest(&server, &client).await;
        client.execute(&insert, &[&"many-", &true, &100]).await.expect("rows");
        client.execute(&insert, &[&"one", &false, &100]).await.expect("rows");
        newest(&server, &client).await;
        let mut of_this_size = Vec::new();
        for _ in 0..ROUNDS {
            let one = cost(&server, &format!("scope=one&since={since}"));
            let many = cost(&server, &format!("{fifty}since={since}"));
            of_this_size.push((one, many));
        }
        let middle = |of: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = of_this_size.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            quantile(&values, 0.5)
        };
        println!("  {goal:8} stored: 1 scope {:6.0}   50 scopes {:6.0}", middle(|cost| cost.0), middle(|cost| cost.1));
        costs.push(of_this_size);
    }
    let (least, most) = (&costs[0], &costs[costs.len() - 1]);
    let growth = most.iter().zip(least).map(|((_, with_most), (_, with_least))| with_most / with_least).collect();
    let against_one = most.iter().map(|(one, many)| many / one).collect();
    vec![
        Verdict::new("50 scopes at the tail: 100 times as much stored, of the cost", growth, Target::AtMost(1.2), ""),
        Verdict::new(
            "50 scopes at the tail, of the cost of 1",
            against_one,
            Target::AtMost(2.0),
            "reading 50 scopes' names",
        ),
    ]
}

/// The newest sequence once all that was committed is readable.
async fn newest(server: &Server, client: &tokio_postgres::Client) -> String {
    let text: String = client.query_one("select gen_random_uuid()::text", &[]).await.expect("a name").get(0);
    let insert = "insert into rows (_change_selector, body) values ($1, '')";
    client.execute(insert, &[&text]).await.expect("a row");
    let page = Connection::open(&server.url).await.get(&format!("/changes?scope={text}&block=60")).await;
    last_sequence(&String::from_utf8_lossy(&page)).to_owned()
}

/// Microseconds of a call over a kept connection, the median of many.
fn cost(server: &Server, parameters: &str) -> f64 {
    let mut reader = Crowd::connect(server.port, 1);
    let mut costs: Vec<f64> = (0..READS)
        .map(|_| {
            let start = Instant::now();
            reader.ask(|_| format!("/changes?{parameters}&limit=100"));
            let page = reader.answers();
            assert_eq!(page.matches(r#""operation""#).count(), 100, "a full page");
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    quantile(&costs, 0.5)
}
