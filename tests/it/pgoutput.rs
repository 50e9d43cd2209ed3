//! Decoder and assembler against a real PostgreSQL: what comes out of a slot is what the tables say.

use std::convert::Infallible;

use serde_json::{Value, json};
use tokio_postgres::Client;
use walclock::domain::history::History;
use walclock::domain::sequence::Lsn;
use walclock::feed::assemble::{Assembler, Config, Progress};
use walclock::feed::sink::{Accept, Head, Row, Side, Sink};

use crate::support;

/// A row as a sink saw it.
#[derive(Debug)]
struct Seen {
    txid: u64,
    scopes: Vec<(Side, String)>,
    to_everyone: bool,
    body: Value,
    left: Value,
    entered: Value,
}

/// Keeps every row of the transactions that were committed to it.
#[derive(Default)]
struct Kept {
    txid: u64,
    open: Vec<Seen>,
    rows: Vec<Seen>,
}

impl Sink for Kept {
    type Error = Infallible;

    fn begin(&mut self, head: &Head) -> Result<Accept, Infallible> {
        assert!(self.open.is_empty(), "the transaction before was committed");
        self.txid = head.txid;
        Ok(Accept::Take)
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Infallible> {
        let json = |bytes: &[u8]| match bytes {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes).unwrap(),
        };
        self.open.push(Seen {
            txid: self.txid,
            scopes: row.scopes.iter().map(|(side, scope)| (*side, (*scope).to_owned())).collect(),
            to_everyone: row.to_everyone,
            body: json(row.body),
            left: json(row.left_body),
            entered: json(row.entered_body),
        });
        Ok(())
    }

    fn commit(&mut self, _: Lsn) -> Result<(), Infallible> {
        self.rows.append(&mut self.open);
        Ok(())
    }

    fn abandon(&mut self) {
        self.open.clear();
    }
}

/// A database with a publication of all its tables, and a slot that has been there from the start.
struct Feed {
    url: String,
    client: Client,
}

impl Feed {
    async fn new(schema: &str) -> Self {
        let url = support::database().await;
        let client = support::connect(&url).await;
        client.batch_execute(schema).await.unwrap();
        for sql in [
            "create publication everything for all tables with (publish_via_partition_root = true)",
            "select pg_create_logical_replication_slot(current_database()::text, 'pgoutput')",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        Self { url, client }
    }

    async fn run(&self, sql: &str) -> Vec<Seen> {
        self.client.batch_execute(sql).await.unwrap();
        self.changes().await
    }

    /// What has happened since the last call.
    async fn changes(&self) -> Vec<Seen> {
        let txid_now: i64 = self.value("select txid_current()").await;
        let messages = self
            .client
            .query(
                "select (lsn - '0/0')::bigint, data from pg_logical_slot_get_binary_changes(
                     current_database()::text, null, null,
                     'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')",
                &[],
            )
            .await
            .unwrap();
        let selector_columns = vec!["_change_selector".to_owned()];
        let mut assembler = Assembler::new(Config { selector_columns }, History::default(), txid_now.cast_unsigned());
        let mut kept = Kept::default();
        let mut progress = Progress::Idle;
        for message in messages {
            let lsn = Lsn(message.get::<_, i64>(0).cast_unsigned());
            progress = assembler.message(lsn, message.get(1), &mut kept).unwrap();
        }
        assert_ne!(progress, Progress::Within);
        kept.rows
    }

    async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The one row of a table as the feed is to show it, built by SQL from PostgreSQL's own output.
    async fn row_of(&self, table: &str) -> Value {
        let columns: Vec<String> = self
            .client
            .query(
                "select format('%L, json_build_object(''value'', case when %2$I is null then null %3$s end, ''type'', %4$L::bigint)',
                               attname, attname,
                               case atttypid when 'bool'::regtype then format('else %I::text', attname)
                                             else format('else format(''%%s'', %I)', attname) end,
                               atttypid::bigint)
                 from pg_attribute where attrelid = $1::text::regclass and attnum > 0 order by attnum",
                &[&table],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        self.value(&format!("select json_build_object({}) from {table}", columns.join(", "))).await
    }
}

fn side(side: Side, scope: &str) -> (Side, String) {
    (side, scope.to_owned())
}

const TYPES: &str = r#"
    create type mood as enum ('sad', 'ok "quoted"');
    create domain positive as integer check (value > 0);
    create type pair as (a integer, b text);
    create table t (
        id integer primary key, "Quoted ""name""" text, small smallint, big bigint, o oid, r real, d double precision,
        n numeric, n2 numeric(20,5), yes boolean, no boolean, c char(5), v varchar(9), bytes bytea, j json, jb jsonb,
        u uuid, da date, ti time, titz timetz, ts timestamp, tstz timestamptz, iv interval, ints integer[],
        texts text[], deep text[], bools boolean[], m mood, p positive, pa pair, pt point, ip inet, ra int4range,
        mo money, tv tsvector, bi bit(3), na name, x xml, inf timestamptz, empty text, nothing text);
    alter table t replica identity full"#;

const VALUES: &str = r#"
    insert into t values (
        1, E'tab\t new\nline "quote" back\\slash \u0001 ü 字 😀', -32768, 9223372036854775807, 4294967295, 1.5e-30,
        0.1, 'NaN', 123456789012345.67890, true, false, 'ab', 'größe', '\x00ff5c22', '{"a" : [1, null, "ü"]}',
        '{"b":{"c":true}}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '0044-03-15 BC', '23:59:59.999999',
        '12:00:00+05:30', '2026-11-21 09:30:00.25', '2026-11-21 09:30:00.25+00', '1 year 2 mons -3 days 04:05:06.7',
        '{1,null,-3}', '{"a b",null,"null","\"",""}', '[2:3][1:1]={{a},{b}}', '{t,f}', 'ok "quoted"', 7,
        row(1, 'x,"y"'), '(1.5,-2)', '10.0.0.0/8', '[1,10)', 12.34, 'a fat cat', '101', 'name', '<a b="c">d</a>',
        'infinity', '', null)"#;

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_are_postgresqls_own_text() {
    let feed = Feed::new(TYPES).await;
    let changes = feed.run(VALUES).await;
    let before = feed.row_of("t").await;
    assert_eq!(changes[0].body["operation"], 1);
    assert_eq!(changes[0].body["newRow"], before);
    let changes = feed.run("update t set yes = null, texts = '{}', \"Quoted \"\"name\"\"\" = null").await;
    let after = feed.row_of("t").await;
    assert_eq!(changes[0].body["operation"], 2);
    assert_eq!((&changes[0].body["newRow"], &changes[0].body["oldRow"]), (&after, &before));
    let changes = feed.run("delete from t").await;
    assert_eq!(changes[0].body["operation"], 3);
    assert_eq!((changes[0].body.get("newRow"), &changes[0].body["oldRow"]), (None, &after));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_named_as_postgresql_quotes_it() {
    let feed = Feed::new("create schema \"S p\"").await;
    feed.client
        .batch_execute(
            r#"do $$
               declare
                   word text;
               begin
                   for word in
                       select k.word from pg_get_keywords() k
                       union values ('plain'), ('Upper'), ('_1'), ('1a'), ('with space'), ('say "hi"'), ('größe'), ('a.b')
                   loop
                       execute format('create table public.%1$I (id int primary key); insert into public.%1$I values (1)', word);
                   end loop;
                   create table "S p".t (id int primary key);
                   insert into "S p".t values (1);
               end $$"#,
        )
        .await
        .unwrap();
    let changes = feed.changes().await;
    let mut found: Vec<_> = changes.iter().map(|change| change.body["table"].as_str().unwrap()).collect();
    let expected: Vec<String> = feed
        .value(
            "select array_agg(format('%I.%I', nspname, relname)) from pg_class c join pg_namespace n on n.oid = relnamespace
             where relkind = 'r' and nspname in ('public', 'S p')",
        )
        .await;
    // A version that would leave a word bare which a newer one quotes: the feed names the table alike on both.
    let quoted = |name| if name == "public.json" { "public.\"json\"" } else { name };
    let mut expected: Vec<_> = expected.iter().map(|name| quoted(name.as_str())).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// A large value that is stored outside of the row, beside a small one.
const LARGE: &str = "
    create table t (id integer primary key, small integer not null, large text, other integer not null unique);
    alter table t alter large set storage external;
    insert into t values (1, 1, repeat('0123456789', 1000), 5);";

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_left_alone_is_never_null() {
    for (identity, known) in [("default", false), ("full", true), ("using index t_other_key", false)] {
        let feed = Feed::new(&format!("{LARGE} alter table t replica identity {identity}")).await;
        let changes = feed.run("update t set small = 2").await;
        let (row, unchanged) = (&changes[0].body["newRow"], changes[0].body.get("unchangedColumns"));
        let mut expected = feed.row_of("t").await;
        if known {
            assert_eq!(unchanged, None, "{identity}");
        } else {
            expected.as_object_mut().unwrap().remove("large");
            assert_eq!(unchanged, Some(&json!(["large"])), "{identity}");
        }
        assert_eq!(row, &expected, "{identity}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_key_is_filled_in_from_the_old_row() {
    let schema = "create table t (id text primary key, n integer);
                  alter table t alter id set storage external;
                  insert into t select string_agg(md5(i::text), '') from generate_series(1, 80) i";
    let feed = Feed::new(schema).await;
    let changes = feed.run("update t set n = 2").await;
    assert_eq!(changes[0].body["newRow"], feed.row_of("t").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_truncate_of_two_tables_is_two_changes_for_everyone() {
    let schema =
        "create table a (id integer primary key, _change_selector text); create table b (id integer primary key)";
    let feed = Feed::new(schema).await;
    let changes = feed.run("begin; insert into a values (1, 'x'); truncate a, b; commit").await;
    assert_eq!(changes.len(), 3);
    assert_eq!(changes[0].scopes, [side(Side::Stays, "x")]);
    let mut tables = Vec::new();
    for (index, change) in changes.iter().enumerate().skip(1) {
        assert!(change.to_everyone && change.scopes.is_empty());
        assert_eq!((&change.body["operation"], &change.body["commitIndex"]), (&json!(4), &json!(index)));
        tables.push(change.body["table"].as_str().unwrap());
    }
    tables.sort_unstable();
    assert_eq!(tables, ["public.a", "public.b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_between_scopes_is_told_to_both() {
    use Side::{Entered, Left, Stays};
    let feed = Feed::new(
        "create table one (id integer primary key, _change_selector text);
         create table many (id integer primary key, _change_selector text[]);
         create table keyed (id integer, _change_selector text, primary key (id, _change_selector));
         create table blind (id integer primary key, _change_selector text);
         alter table one replica identity full; alter table many replica identity full;
         insert into one values (1, 'a'); insert into many values (1, '{a,b}');
         insert into keyed values (1, 'a'); insert into blind values (1, 'a')",
    )
    .await;
    for (sql, scopes) in [
        ("update one set _change_selector = 'b'", vec![side(Left, "a"), side(Entered, "b")]),
        ("update one set _change_selector = null", vec![side(Left, "b"), side(Entered, "")]),
        ("update one set id = 2", vec![side(Stays, "")]),
        ("update many set _change_selector = '{b,c}'", vec![side(Left, "a"), side(Stays, "b"), side(Entered, "c")]),
        ("update keyed set _change_selector = 'b'", vec![side(Left, "a"), side(Entered, "b")]),
        ("delete from keyed", vec![side(Stays, "b")]),
        ("update blind set _change_selector = 'b'", vec![side(Stays, "b")]),
        ("delete from blind", vec![side(Stays, "")]),
    ] {
        let changes = feed.run(sql).await;
        assert_eq!(changes.len(), 1, "{sql}");
        let change = &changes[0];
        assert_eq!(change.scopes, scopes, "{sql}");
        let is_told = |wanted| scopes.iter().any(|(side, _)| *side == wanted);
        assert_eq!(change.left.is_null(), !is_told(Left), "{sql}");
        assert_eq!(change.entered.is_null(), !is_told(Entered), "{sql}");
        if is_told(Left) {
            assert_eq!((&change.left["operation"], &change.left["oldRow"]), (&json!(3), &change.body["oldRow"]));
            assert_eq!(change.left.get("newRow"), None);
        }
        if is_told(Entered) {
            assert_eq!((&change.entered["operation"], &change.entered["newRow"]), (&json!(1), &change.body["newRow"]));
            assert_eq!(change.entered.get("oldRow"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_appears_as_its_root() {
    let feed = Feed::new(
        "create table parts (id integer primary key, _change_selector text) partition by range (id);
         create table parts_1 partition of parts for values from (0) to (10);
         create table parts_2 partition of parts for values from (10) to (20)",
    )
    .await;
    let changes = feed.run("insert into parts values (1, 'a'), (11, 'b')").await;
    let told: Vec<_> = changes.iter().map(|change| (change.body["table"].clone(), change.scopes.clone())).collect();
    let root = json!("public.parts");
    assert_eq!(told, [(root.clone(), vec![side(Side::Stays, "a")]), (root, vec![side(Side::Stays, "b")])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_come_in_commit_order_under_their_own_ids() {
    let feed = Feed::new("create table t (id integer primary key)").await;
    let mut other = support::connect(&feed.url).await;
    let late = other.transaction().await.unwrap();
    late.execute("insert into t values (1)", &[]).await.unwrap();
    let late_txid: i64 = late.query_one("select txid_current()", &[]).await.unwrap().get(0);
    let sql = "begin; insert into t values (2); savepoint s; insert into t values (3); rollback to s;
               insert into t values (4); savepoint s2; insert into t values (5); commit";
    feed.client.batch_execute(sql).await.unwrap();
    late.execute("insert into t values (6)", &[]).await.unwrap();
    feed.client.batch_execute("begin; insert into t values (7); rollback").await.unwrap();
    feed.client.execute("select pg_logical_emit_message(true, 'p', 'x')", &[]).await.unwrap();
    late.commit().await.unwrap();
    let changes = feed.changes().await;
    let told: Vec<_> = changes
        .iter()
        .map(|change| {
            (change.body["newRow"]["id"]["value"].as_str().unwrap(), change.body["commitIndex"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(told, [("2", 0), ("4", 1), ("5", 2), ("1", 0), ("6", 1)]);
    assert_eq!(changes[4].txid, late_txid.cast_unsigned());
    assert_eq!(changes[4].body["txid"], late_txid);
    assert!(changes[0].txid > changes[4].txid, "it began later and committed earlier");
    let sequence = |place: usize| changes[place].body["commitSequence"].as_u64().unwrap();
    assert!(sequence(2) < sequence(3));
    for change in &changes {
        assert!(change.body["changeSequence"].as_u64() <= change.body["commitSequence"].as_u64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scope_of_a_timer_is_the_databases_shard() {
    let feed = Feed::new(include_str!("../../sql/migrations/0001_schema.sql")).await;
    let changes = feed
        .run("insert into walclock.timers (namespace, id, execute_at, callback_url)
              select n, 'ü-' || i, now(), 'http://localhost/' from generate_series(1, 20) i, unnest('{a,b/c}'::text[]) n")
        .await;
    assert_eq!(changes.len(), 40);
    for change in changes {
        let name = |column: &str| change.body["newRow"][column]["value"].as_str().unwrap().to_owned();
        let row = feed
            .client
            .query_one(
                "select 'walclock.timers/' || shard from walclock.timers where namespace = $1 and id = $2",
                &[&name("namespace"), &name("id")],
            )
            .await
            .unwrap();
        assert_eq!(change.scopes, [side(Side::Stays, row.get(0))]);
    }
}
