//! What the schema allows and refuses, and how it comes about.

use std::collections::BTreeSet;
use std::future::poll_fn;

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use walclock::domain::shard::Shard;
use walclock::pg::Settings;
use walclock::store::migrate::{self, Error};

use crate::support;

/// All migrations, oldest first.
const ALL: &[&str] = &[
    "V1__schema",
    "V2__schedules",
    "V3__deferrals",
    "V4__ring",
    "V5__moves",
    "V6__partitions",
    "V7__callbacks",
    "V8__publish",
    "V9__history",
    "V10__header_bytes",
    "V11__claims",
    "V12__checks",
];

async fn migrated() -> (Client, Settings) {
    let url = support::migrated().await;
    (support::connect(&url).await, Settings::parse(&url).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_once_whoever_runs_them() {
    let settings = Settings::parse(&support::database().await).unwrap();
    assert_eq!(migrate::dry_run(&settings).await.unwrap(), ALL);
    let (a, b, c) = tokio::join!(migrate::run(&settings), migrate::run(&settings), migrate::run(&settings));
    let done = [a, b, c].map(Result::unwrap);
    assert_eq!(done.concat(), ALL, "{done:?}");
    assert_eq!(migrate::dry_run(&settings).await.unwrap(), [] as [&str; 0]);
    assert_eq!(migrate::run(&settings).await.unwrap(), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_not_ours_is_refused() {
    let (client, settings) = migrated().await;
    let insert = "insert into walclock.walclock_migrations values (99, 'from_the_future', now()::text, '1')";
    client.batch_execute(insert).await.unwrap();
    assert!(matches!(migrate::run(&settings).await, Err(Error::Ahead { version: 99, .. })));
    let change = "delete from walclock.walclock_migrations where version = 99;
                  update walclock.walclock_migrations set checksum = '1'";
    client.batch_execute(change).await.unwrap();
    assert!(matches!(migrate::dry_run(&settings).await, Err(Error::Different { version: 1, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_leaves_nothing_behind() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    client.batch_execute("create schema walclock; create table walclock.timers ()").await.unwrap();
    let settings = Settings::parse(&url).unwrap();
    assert!(matches!(migrate::run(&settings).await, Err(Error::Failed(_))));
    let made = "select count(*) from pg_class where relnamespace = 'walclock'::regnamespace
                and relname in ('namespaces', 'runs')";
    assert_eq!(client.query_one(made, &[]).await.unwrap().get::<_, i64>(0), 0);
    client.batch_execute("drop table walclock.timers").await.unwrap();
    assert_eq!(migrate::run(&settings).await.unwrap(), ALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_other_than_utf8_is_refused() {
    let admin = support::connect(&support::database().await).await;
    let create = "create database in_latin encoding 'LATIN1' locale 'C' template template0";
    admin.batch_execute(create).await.unwrap();
    let settings = Settings::parse(&support::cluster().url("in_latin")).unwrap();
    assert!(matches!(migrate::run(&settings).await, Err(Error::WrongEncoding { encoding }) if encoding == "LATIN1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_insert_is_enough() {
    let (client, _) = migrated().await;
    let sql = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
               values ('n', 'a', '2030-01-01 00:00+00', 'https://example.com', '{}')
               returning due_at = execute_at and attempts = 0 and callback_method = 'POST' as is_as_it_should_be";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}

/// A constraint of walclock.timers, or a rule of `walclock.is_fit`, and assignments that it refuses.
const IMPOSSIBLE: &[(&str, &[&str])] = &[
    ("timers_namespace_length", &["namespace = ''", "namespace = repeat('ü', 128)"]),
    ("timers_namespace_characters", &["namespace = E'a\\nb'", "namespace = E'\\x7f'"]),
    ("timers_id_length", &["id = ''", "id = repeat('ü', 256)"]),
    ("timers_id_characters", &["id = E'a\\tb'"]),
    ("timers_execute_at_range", &["execute_at = 'infinity'", "execute_at = '-infinity'", "execute_at = '10000-01-01'"]),
    ("timers_retry_at_range", &["attempts = 1, retry_at = 'infinity'"]),
    ("timers_callback_url_length", &["callback_url = 'http://h/' || repeat('x', 2048)"]),
    (
        "timers_callback_url_form",
        &[
            "callback_url = ''",
            "callback_url = 'ftp://host/'",
            "callback_url = 'http://'",
            "callback_url = 'http://user@host/'",
            "callback_url = 'http://host/a b'",
            "callback_url = E'http://host/\\n'",
        ],
    ),
    ("timers_callback_method_known", &["callback_method = 'post'", "callback_method = 'CONNECT'"]),
    ("timers_callback_headers_object", &["callback_headers = '[]'", "callback_headers = '1'"]),
    (
        "timers_callback_headers_count",
        &["callback_headers = (select jsonb_object_agg('x' || n, '') from generate_series(1, 33) n)"],
    ),
    ("timers_callback_headers_length", &["callback_headers = jsonb_build_object('x', repeat('x', 16384))"]),
    (
        "timers_callback_headers_names",
        &[
            r#"callback_headers = '{"": "a"}'"#,
            r#"callback_headers = '{"x y": "a"}'"#,
            r#"callback_headers = '{"ü": ""}'"#,
        ],
    ),
    (
        "timers_callback_headers_values",
        &[
            r#"callback_headers = '{"x": 1}'"#,
            r#"callback_headers = '{"x": null}'"#,
            r#"callback_headers = '{"x": ["a"]}'"#,
            r#"callback_headers = '{"x": "a\r\nb: c"}'"#,
            r#"callback_headers = '{"x": "\u007f"}'"#,
        ],
    ),
    (
        "timers_callback_url_host_and_port",
        &[
            "callback_url = 'http://host:65536/'",
            "callback_url = 'https://host:0'",
            "callback_url = 'http://host:http/'",
            "callback_url = 'http://:80/'",
            "callback_url = 'http://host:80:81?x'",
            "callback_url = 'http://[::1]:99999/'",
        ],
    ),
    (
        "timers_callback_headers_reserved",
        &[r#"callback_headers = '{"x": "", "HOST": "a"}'"#, r#"callback_headers = '{"walclock-fence": "9"}'"#],
    ),
    ("timers_callback_headers_size", &["callback_headers = jsonb_build_object('x', repeat('x', 8192))"]),
    ("timers_callback_timeout_range", &["callback_timeout_seconds = 0", "callback_timeout_seconds = 301"]),
    ("timers_payload_length", &["payload = ('\"' || repeat('x', 102400) || '\"')::json"]),
    ("timers_retry_attempts_max_range", &["retry_attempts_max = 0"]),
    ("timers_retry_duration_range", &["retry_duration = '-1 second'", "retry_duration = '101 years'"]),
    ("timers_retry_interval_first_range", &["retry_interval_first = '0'"]),
    (
        "timers_retry_multiplier_range",
        &["retry_multiplier = 0.9", "retry_multiplier = 'NaN'", "retry_multiplier = 101"],
    ),
    ("timers_retry_interval_max_range", &["retry_interval_max = '0'"]),
    ("timers_attempts_range", &["attempts = -1"]),
    ("timers_last_error_length", &["last_error = repeat('x', 1025)"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn impossible_timers_are_refused() {
    let (client, _) = migrated().await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                  values ('n', 'a', now(), 'http://localhost')";
    client.batch_execute(insert).await.unwrap();
    for (constraint, assignments) in IMPOSSIBLE {
        for assignment in *assignments {
            let error = client.batch_execute(&format!("update walclock.timers set {assignment}")).await;
            let error = error.expect_err(assignment);
            let error = error.as_db_error().expect("an answer");
            assert_eq!(error.constraint(), Some(*constraint), "{assignment}: {error:?}");
            // Those of `walclock.is_fit` name the column, too.
            let says_what_is_allowed = |column: &str| error.message().starts_with(&format!("{column} must "));
            assert!(error.column().is_none_or(says_what_is_allowed), "{assignment}: {error:?}");
        }
    }
    let all = r"select conname::text from pg_constraint
                where conrelid = 'walclock.timers'::regclass and contype = 'c' and conname <> 'timers_fit'
                union all
                select 'timers_' || rule[1]
                from regexp_matches(pg_get_functiondef('walclock.is_fit'::regproc), 'array\[''\w+'', ''(\w+)''', 'g') as rule";
    let all: BTreeSet<String> = client.query(all, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let tried: BTreeSet<String> = IMPOSSIBLE.iter().map(|(constraint, _)| (*constraint).to_owned()).collect();
    assert_eq!(all, tried, "each constraint is tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_which_value_of_which_row_and_what_is_allowed() {
    let (client, _) = migrated().await;
    let cases = [
        (
            "timers (namespace, id, execute_at, callback_url, callback_timeout_seconds) values
                 ('shop', 'a', now(), 'http://h', 0), ('shop', 'b', now(), 'http://h', 1)",
            "callback_timeout_seconds must be from 1 to 300, but is 0 (timer \"a\" of namespace \"shop\")",
        ),
        (
            r"timers (namespace, id, execute_at, callback_url) values ('shop', E'a\nb', now(), 'http://h')",
            r#"id must have no control characters, but is "a\nb" (timer "a\nb" of namespace "shop")"#,
        ),
        (
            "timers (namespace, id, execute_at, callback_url) values ('shop', 'a', 'infinity', 'http://h')",
            r#"execute_at must be from the year 1 to the year 9999, but is "infinity" (timer "a" of namespace "shop")"#,
        ),
        (
            "schedules (namespace, id, cron, callback_url, callback_method) values ('shop', 'a', '* * * * *', 'http://h', 'post')",
            r#"callback_method must be GET, POST, PUT, PATCH or DELETE, but is "post" (schedule "a" of namespace "shop")"#,
        ),
    ];
    for (row, wanted) in cases {
        let refused = client.batch_execute(&format!("insert into walclock.{row}")).await.expect_err(row);
        let error = refused.as_db_error().expect("an answer");
        assert_eq!((error.message(), error.schema()), (wanted, Some("walclock")));
        assert_eq!(error.table(), row.split(' ').next());
    }
    let large = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
                 values ('shop', 'a', now(), 'http://h', to_json(repeat('x', 102400)))";
    let refused = client.batch_execute(large).await.expect_err("too large");
    let message = refused.as_db_error().expect("an answer").message();
    assert!(message.starts_with("payload must have at most 102400 bytes, but is ") && message.len() < 400, "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_insert_needs_no_right_for_the_check() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let harden = "alter default privileges revoke execute on functions from public";
    client.batch_execute(harden).await.unwrap();
    migrate::run(&Settings::parse(&url).unwrap()).await.unwrap();
    // The second one's headers are short in themselves, but not as the text of JSON.
    let insert = r#"create role inserts_alone;
                    grant usage on schema walclock to inserts_alone;
                    grant insert on walclock.timers to inserts_alone;
                    set role inserts_alone;
                    insert into walclock.timers (namespace, id, execute_at, callback_url, callback_headers) values
                        ('n', 'a', now(), 'http://localhost', '{}'),
                        ('n', 'b', now(), 'http://localhost', jsonb_build_object('x', repeat('"', 5000)))"#;
    client.batch_execute(insert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shard_of_a_row_is_the_one_that_the_server_computes() {
    let (client, _) = migrated().await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                  select substr('nämespace/字', 1, 1 + n % 12), 'ü/' || repeat('x', n % 40) || n, now(), 'http://localhost'
                  from generate_series(1, 2000) n
                  returning namespace, id, shard";
    for row in client.query(insert, &[]).await.unwrap() {
        let (namespace, id, shard): (&str, &str, i16) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(i16::from(Shard::of(namespace, id).0), shard, "{namespace}/{id}");
    }
}

async fn publish(client: &Client, call: &str) -> Result<(), String> {
    let called = client.batch_execute(&format!("select walclock.publish({call})")).await;
    called.map_err(|error| error.as_db_error().map_or(String::new(), |error| error.message().to_owned()))
}

async fn is_published(client: &Client, table: &str) -> bool {
    let sql = "select exists (select from pg_publication_tables
               where pubname = 'walclock' and tablename = $1)";
    client.query_one(sql, &[&table]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tables_whose_changes_can_be_told_are_published() {
    let (client, _) = migrated().await;
    let tables = "create table good (id int primary key);
                  create table full_identity (id int, _change_selector text);
                  alter table full_identity replica identity full;
                  create table scope_in_key (_apid_scope text, id int, primary key (_apid_scope, id));
                  create table scope_outside (id int primary key, _change_selector text);
                  create table scope_in_index (id int primary key, _change_selector text not null);
                  create unique index by_scope on scope_in_index (_change_selector, id);
                  alter table scope_in_index replica identity using index by_scope;
                  create table no_key (id int);
                  create table nothing (id int primary key);
                  alter table nothing replica identity nothing;
                  create unlogged table fleeting (id int primary key);
                  create temporary table passing (id int primary key);
                  create view seen as select 1 as id;
                  create table parts (id int primary key) partition by range (id);
                  create table own_scope (id int primary key, tenant text);
                  create table generated (id int primary key, tenant int,
                      _change_selector text generated always as ('t' || tenant) stored);
                  alter table generated replica identity full;
                  create table deferred (id int primary key deferrable initially deferred);
                  create table included (id int, _change_selector text, primary key (id) include (_change_selector));
                  create table half (id int primary key, _change_selector text) partition by range (id);
                  create table half_1 partition of half for values from (0) to (10);
                  create table half_2 partition of half for values from (10) to (20);
                  alter table half replica identity full;
                  alter table half_1 replica identity full;";
    client.batch_execute(tables).await.unwrap();
    for table in ["good", "full_identity", "scope_in_key", "scope_in_index", "parts", "good"] {
        assert_eq!(publish(&client, &format!("'{table}'")).await, Ok(()), "{table}");
        assert!(is_published(&client, table).await, "{table}");
    }
    for (call, why) in [
        ("'scope_outside'", "lacks its scope column _change_selector"),
        ("'no_key'", "has no replica identity"),
        ("'nothing'", "has no replica identity"),
        ("'no_key', force => true", "has no replica identity"),
        ("'fleeting'", "is not a permanent table"),
        ("'passing', force => true", "is a temporary table"),
        ("'pg_class', force => true", "is one of PostgreSQL's own tables"),
        ("'information_schema.sql_features'", "is one of PostgreSQL's own tables"),
        ("'seen'", "is not a table"),
        ("'half'", "the replica identity of half_2 lacks its scope column _change_selector"),
        ("'walclock.namespaces'", "is one of walclock's own tables"),
        ("'walclock.timers'", "is one of walclock's own tables"),
        ("'walclock.runs', force => true", "is one of walclock's own tables"),
        ("'included'", "lacks its scope column _change_selector"),
        ("'deferred', force => true", "has no replica identity"),
        ("'generated', force => true", "generated"),
        ("'own_scope', selector_columns => '{tenant}'", "lacks its scope column tenant"),
    ] {
        let refusal = publish(&client, call).await.expect_err(call);
        assert!(refusal.contains(why), "{call}: {refusal}");
    }
    for never in ["passing", "pg_class"] {
        let call = format!("select walclock.publish('{never}')");
        let error = client.batch_execute(&call).await.expect_err(never);
        assert_eq!(error.as_db_error().unwrap().hint(), None, "nothing helps");
    }
    assert!(!is_published(&client, "scope_outside").await);
    assert_eq!(publish(&client, "'scope_outside', force => true").await, Ok(()));
    assert!(is_published(&client, "scope_outside").await);
}

/// Tables, and whose identity they are told of to lack columns that a row may leave behind when it moves.
const MOVED: &[(&str, Option<&str>)] = &[
    (
        "create table moved (id int, _change_selector text, body text, primary key (id, _change_selector))",
        Some("moved"),
    ),
    (
        "create table moved (id int, _change_selector text, body text, primary key (id, _change_selector))
             partition by range (id);
         create table moved_1 partition of moved for values from (0) to (10)",
        Some("moved_1"),
    ),
    (
        "create table moved (id int, _change_selector text, body text, primary key (id, _change_selector));
         alter table moved replica identity full",
        None,
    ),
    // All large columns are in the identity.
    ("create table moved (id int, _change_selector text, body text, primary key (id, _change_selector, body))", None),
    // Its rows are never too long for a page.
    (
        "create table moved (id int, _change_selector varchar(40), body varchar(40), primary key (id, _change_selector))",
        None,
    ),
    (
        "create table moved (id int, _change_selector text, size int, primary key (id, _change_selector));
         alter table moved add body text;
         alter table moved alter body set storage plain",
        None,
    ),
    // No scope, no move.
    ("create table moved (id int primary key, body text)", None),
];

/// A connection, and what its server remarks: that has come before the statement's answer has.
async fn connect_to_hear_notices(url: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (sender, notices) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.send(notice.message().to_owned());
            }
        }
    });
    (client, notices)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_may_move_without_their_large_values_is_published_with_a_notice() {
    let (client, mut notices) = connect_to_hear_notices(&support::migrated().await).await;
    for (table, told) in MOVED {
        client.batch_execute(&format!("drop table if exists moved; {table}")).await.unwrap();
        while notices.try_recv().is_ok() {}
        assert_eq!(publish(&client, "'moved'").await, Ok(()), "{table}");
        assert!(is_published(&client, "moved").await, "{table}");
        let expected =
            told.map(|name| format!("the replica identity of {name} lacks columns that PostgreSQL may store apart"));
        assert_eq!(notices.try_recv().ok(), expected, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_could_ask_for_are_published_only_by_force() {
    let (client, _) = migrated().await;
    let types = "create domain texts as text[]; create domain padded as char(4); create domain word as varchar(9)";
    client.batch_execute(types).await.unwrap();
    let allowed = [
        "text",
        "varchar(9)",
        "char(4)",
        "name",
        "word",
        "uuid",
        "int",
        "bigint",
        "bool",
        "date",
        "text[]",
        "varchar(9)[]",
    ];
    let refused =
        ["int[]", "uuid[]", "name[]", "texts", "padded", "bytea", "jsonb", "timestamptz", "int4range", "point"];
    for (at, kind) in allowed.iter().chain(&refused).enumerate() {
        let table = format!(
            "create table typed_{at} (id int primary key, _change_selector {kind});
             alter table typed_{at} replica identity full"
        );
        client.batch_execute(&table).await.unwrap();
        let published = publish(&client, &format!("'typed_{at}'")).await;
        if allowed.contains(kind) {
            assert_eq!(published, Ok(()), "{kind}");
            continue;
        }
        let refusal = published.expect_err(kind);
        assert!(
            refusal.contains(&format!("the scope column _change_selector of typed_{at} is of the type ")),
            "{refusal}"
        );
        assert_eq!(publish(&client, &format!("'typed_{at}', force => true")).await, Ok(()), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_does_not_make_everybody_wait_for_a_table_that_is_in_use() {
    let (mut client, settings) = migrated().await;
    let undo = "delete from walclock.walclock_migrations where version >= 5;
                drop function walclock.follow_move, walclock.header_bytes, walclock.publish_faults, walclock.note_run,
                    walclock.is_fit cascade;
                drop table walclock.claims cascade;
                alter table walclock.runs drop column noted;
                create index runs_running_by_shard on walclock.runs (shard) where state = 'running';
                do $$ declare bad record; begin
                    for bad in select conrelid::regclass as relation, conname from pg_constraint where not convalidated loop
                        execute format('alter table %s drop constraint %I', bad.relation, bad.conname);
                    end loop;
                end $$";
    client.batch_execute(undo).await.unwrap();
    let using = client.transaction().await.unwrap();
    using.batch_execute("delete from walclock.timers").await.unwrap();
    let run = tokio::time::timeout(support::PATIENCE, migrate::run(&settings)).await;
    assert!(matches!(run.expect("it gives up by itself"), Err(Error::Failed(_))));
    using.rollback().await.unwrap();
    assert_eq!(migrate::run(&settings).await.unwrap(), ALL[4..]);
}
