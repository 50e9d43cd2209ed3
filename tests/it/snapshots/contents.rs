//! Which tables, rows, columns and values a snapshot has: those that the feed tells of.

use super::*;
use crate::support;

/// A table with columns of many types, and rows that are hard to write.
const TYPES: &str = "
    create type mood as enum ('sad', 'very happy');
    create domain positive as int check (value > 0);
    create table items (
        id int primary key, _change_selector text, small int2, big int8, exact numeric, single float4, double float8,
        yes bool, word varchar(20), padded char(5), raw bytea, day date, at time, attz timetz, stamp timestamp,
        stamptz timestamptz, span interval, uuid uuid, bag jsonb, text_bag json, net inet, mood mood, positive positive,
        numbers int[], words text[], range tstzrange, point point, bits varbit, price money, kind regclass, doc xml,
        \"say \"\"hi\"\"\" text
    );
    alter table items replica identity full";
const ROWS: &str = "
    insert into items values
        (1, 'foo', -32768, 9223372036854775807, 12345678901234567890.12345, 0.1, 0.30000000000000004, true, 'é', 'ab',
         '\\x00ff', '2026-12-31', '23:59:59.123456', '12:00+02', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05+02',
         '1 year 2 mons -3 days 04:05:06.7', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"b\": 1, \"a\": [null]}',
         '{\"b\" :1}', '10.0.0.1/8', 'very happy', 7, '{1,NULL,3}', '{\"a b\",\"c\\\"d\",NULL}',
         '[2026-01-01 00:00+00,)', '(1.5,2)', '101', '12.34', 'items', '<a>b</a>', E'tab\\t quote\" slash\\\\ \\u0001'),
        (2, 'foo', null, null, 'NaN', 'NaN', '-Infinity', false, '', '', '', 'infinity', null, null, '-infinity', null, null,
         null, 'null', null, null, null, null, '{}', '{}', 'empty', null, '', '-1', null, null, null)";

#[tokio::test(flavor = "multi_thread")]
async fn values_look_as_the_feed_tells_them_whatever_the_role_has_set() {
    let feed = Feed::with(TYPES, &SELECTORS).await;
    let odd = "alter database current set datestyle = 'german'; alter database current set intervalstyle = 'iso_8601';
               alter database current set extra_float_digits = 0; alter database current set bytea_output = 'escape';
               alter database current set timezone = 'Asia/Tokyo'; alter database current set row_security = on";
    let name = feed.database.rsplit('/').next().unwrap();
    feed.client.batch_execute(&odd.replace("current", name)).await.unwrap();
    feed.commit(ROWS).await;
    let snapshot = take(&serve(&feed).await, "scope=foo").await;
    let page = feed.page("scope=foo").await;
    let told: Vec<&Value> = page.changes.iter().map(|change| &change["newRow"]).collect();
    assert_eq!(rows(&snapshot, "public.items").iter().collect::<Vec<_>>(), told);
    assert_eq!(snapshot["tables"][0]["name"], page.changes[0]["table"]);
    assert_eq!(told[0]["stamptz"]["value"], "2026-01-02 01:04:05+00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_found_as_the_feed_finds_it() {
    let tables = "create table texts (id text primary key, _change_selector text);
                  create table wide (id text primary key, _change_selector varchar(50));
                  create table arrays (id text primary key, _change_selector text[]);
                  create table wides (id text primary key, _change_selector varchar[]);
                  create table numbers (id text primary key, _change_selector int);
                  create table truths (id text primary key, _change_selector bool);
                  create table padded (id text primary key, _change_selector char(4));
                  create table second (id text primary key, _apid_scope text);
                  create table two (id text primary key, _apid_scope text, _change_selector text);
                  create table without (id text primary key, scope text)";
    let feed = Feed::with(tables, &SELECTORS).await;
    feed.commit(
        "insert into texts values ('1', '7'), ('2', '77'), ('3', null), ('4', ''), ('5', ' 7'), ('6', 't');
         insert into wide values ('1', '7'), ('2', '8');
         insert into arrays values ('1', '{7,8}'), ('2', '{8}'), ('3', '{}'), ('4', '{{1,2},{7,8}}'), ('5', '{NULL,\"\"}'),
                                   ('6', '[3:4]={6,7}'), ('7', null), ('8', '{\"7 \"}'), ('9', '{\"NULL\"}');
         insert into wides values ('1', '{7,8}'), ('2', '{8}');
         insert into numbers values ('1', 7), ('2', 77);
         insert into truths values ('1', true), ('2', false);
         insert into padded values ('1', '7'), ('2', '7777');
         insert into second values ('1', '7'), ('2', '8');
         insert into two values ('1', '7', '8'), ('2', '8', '7');
         insert into without values ('1', '7')",
    )
    .await;
    let url = serve(&feed).await;
    for query in ["scope=7", "scope=8", "scope=t", "scope=7777", "scope=NULL", "scope=7&scope=8", "scope=nothing"] {
        let snapshot = take(&url, query).await;
        let mut held: Vec<(String, String)> = Vec::new();
        for table in snapshot["tables"].as_array().unwrap() {
            let row = |row: &Value| (table["name"].as_str().unwrap().to_owned(), id(row));
            held.extend(table["rows"].as_array().unwrap().iter().map(row));
        }
        let page = feed.page(&format!("{query}&limit=1000")).await;
        let change = |change: &Value| (change["table"].as_str().unwrap().to_owned(), id(&change["newRow"]));
        let mut told: Vec<_> = page.changes.iter().map(change).collect();
        held.sort();
        told.sort();
        assert_eq!(held, told, "{query}");
        assert!(query == "scope=nothing" || !held.is_empty(), "{query}");
        let is_padded = held.contains(&("public.padded".to_owned(), "1".to_owned()));
        assert_eq!(is_padded, query.contains("scope=7") && query != "scope=7777", "{query}");
        assert!(!super::tables(&snapshot).contains(&"public.without"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_texts_of_a_collation_are_not_equal_scopes() {
    let tables = "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                  create table items (id text primary key, _change_selector text collate blind)";
    let feed = Feed::with(tables, &SELECTORS).await;
    feed.commit("insert into items values ('1', 'foo'), ('2', 'FOO')").await;
    assert_eq!(column(&take(&serve(&feed).await, "scope=foo").await, "public.items", "id"), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_named_and_cut_as_they_are_published() {
    let tables = "create schema \"My Schema\";
                  create table \"My Schema\".\"user\" (id int primary key, _change_selector text);
                  create table root (id int primary key, _change_selector text) partition by range (id);
                  create table low partition of root for values from (0) to (10);
                  create table high partition of root for values from (10) to (20);
                  create table parent (id int primary key, _change_selector text);
                  create table child (primary key (id)) inherits (parent);
                  create table made (id int primary key, twice int generated always as (id * 2) stored, _change_selector text);
                  create table unpublished (id int primary key, _change_selector text)";
    let feed = Feed::with(tables, &SELECTORS).await;
    let publication = "drop publication walclock;
        create publication walclock for table \"My Schema\".\"user\", root, parent, made
            with (publish_via_partition_root = true)";
    feed.client.batch_execute(publication).await.unwrap();
    let url = serve(&feed).await;
    feed.commit(
        "insert into \"My Schema\".\"user\" values (1, 'foo');
         insert into root values (1, 'foo'), (11, 'foo'), (2, 'bar');
         insert into parent values (1, 'foo'); insert into child values (2, 'foo');
         insert into made (id, _change_selector) values (1, 'foo');
         insert into unpublished values (1, 'foo')",
    )
    .await;
    let snapshot = take(&url, "scope=foo").await;
    let page = feed.page("scope=foo").await;
    for change in &page.changes {
        let rows = rows(&snapshot, change["table"].as_str().unwrap());
        assert!(rows.contains(&change["newRow"]), "{change} in {rows:?}");
    }
    let held: usize = snapshot["tables"].as_array().unwrap().iter().map(|t| t["rows"].as_array().unwrap().len()).sum();
    assert_eq!(held, page.changes.len());
    let expected = ["\"My Schema\".\"user\"", "public.child", "public.made", "public.parent", "public.root"];
    assert_eq!(super::tables(&snapshot), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_rows_that_are_not_published_stay_out() {
    let tables = "create table items (id int primary key, public boolean, secret text, _change_selector text);
                  alter table items replica identity full";
    let feed = Feed::with(tables, &SELECTORS).await;
    let version: String = feed.client.query_one("show server_version_num", &[]).await.unwrap().get(0);
    if version.as_str() < "150000" {
        return;
    }
    let publication = "drop publication walclock;
        create publication walclock for table items (id, public, _change_selector) where (id < 10 and public)
            with (publish = 'insert')";
    feed.client.batch_execute(publication).await.unwrap();
    feed.commit("insert into items values (1, true, 's', 'foo'), (2, false, 's', 'foo'), (11, true, 's', 'foo')").await;
    let snapshot = take(&serve(&feed).await, "scope=foo").await;
    let page = feed.page("scope=foo").await;
    let told: Vec<&Value> = page.changes.iter().map(|change| &change["newRow"]).collect();
    assert_eq!(rows(&snapshot, "public.items").iter().collect::<Vec<_>>(), told);
    assert_eq!(column(&snapshot, "public.items", "id"), ["1"]);
    assert!(!snapshot.to_string().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_are_there_for_who_asks_for_their_shard() {
    let database = support::migrated().await;
    let client = support::connect(&database).await;
    let feed = Feed::on(&database, client, &SELECTORS).await;
    let publications = vec!["walclock".to_owned(), "walclock_timers".to_owned()];
    let url = serve_as(&feed, Config { publications, ..config(&feed) }, PATIENCE).await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                  select 'n', 't' || i, now() + interval '1 day', 'https://example.com/' from generate_series(1, 40) i
                  returning id, shard";
    let timers: Vec<(String, i16)> =
        feed.client.query(insert, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let shard = timers[0].1;
    let mut expected: Vec<&str> =
        timers.iter().filter(|timer| timer.1 == shard).map(|timer| timer.0.as_str()).collect();
    expected.sort_unstable();
    let snapshot = take(&url, &format!("scope=walclock.timers/{shard}")).await;
    assert_eq!(column(&snapshot, "walclock.timers", "id"), expected);
    assert_eq!(super::tables(&take(&url, "scope=n").await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn walclocks_own_tables_are_read_by_nobody_whatever_is_published() {
    let database = support::migrated().await;
    let client = support::connect(&database).await;
    client
        .batch_execute(
            "create table items (id serial primary key, name text);
             drop publication walclock; create publication walclock for all tables",
        )
        .await
        .unwrap();
    // A column that walclock's own tables have too.
    let feed = Feed::on(&database, client, &["name"]).await;
    let config = Config { selector_columns: vec!["name".to_owned()], ..config(&feed) };
    let url = serve_as(&feed, config, PATIENCE).await;
    let namespace = "insert into walclock.namespaces (name, secrets) values ('n', array['whsec_' || repeat('A', 32)])";
    feed.commit(&format!("{namespace}; insert into items (name) values ('n')")).await;
    assert_eq!(super::tables(&take(&url, "scope=n").await), ["public.items"]);
    feed.client.batch_execute("truncate walclock.dispatchers").await.unwrap();
    feed.commit("insert into items (name) values ('n')").await;
    for (query, count) in [("", 0), ("scope=n", 2)] {
        let changes = feed.page(query).await.changes;
        let told = changes.iter().map(|change| change["table"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(told, vec!["public.items"; count], "{query}");
    }
}
