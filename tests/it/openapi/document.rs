//! The document itself: what is served is what is kept, nothing in it leads nowhere, and it says the server's own bounds.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use walclock::domain::limits;
use walclock::http::openapi;

use super::schema::{self, Document};
use crate::support::database;
use crate::support::http::get;
use crate::support::server::{Server, folder};

#[test]
fn the_kept_document_is_that_of_the_code() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/openapi.json");
    let text = openapi::text("");
    if std::fs::read_to_string(&kept).unwrap_or_default() != text {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
        std::fs::write(&new, &text).unwrap();
        panic!("the code describes another API; to keep it: cp {} {}", new.display(), kept.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_on_the_main_port_behind_the_prefix() {
    let port = walclock::localpg::free_port().unwrap();
    let server = Server::start_managed(&database().await, &folder(), &["--path-prefix", "/feed"], port).await;
    let answer = get(&server.url(), "/feed/openapi.json", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(std::str::from_utf8(&answer.body).unwrap(), openapi::text("/feed"));
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["servers"], json!([{ "url": "/feed" }]));
    assert_eq!(document["paths"]["/health"]["servers"], json!([{ "url": "/" }]), "never behind the prefix");
    assert_eq!(document["paths"]["/changes"].get("servers"), None);
    for (base, path) in [(server.url(), "/openapi.json"), (server.management_url(), "/openapi.json")] {
        assert_eq!(get(&base, path, &[]).await.status, 404, "{base}{path}");
    }
}

#[test]
fn it_is_whole() {
    let document = Document::of_the_code();
    assert_eq!(document.json["openapi"], "3.1.0");
    assert_eq!(document.json["info"]["title"], "walclock");
    assert_eq!(document.json["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document.json["info"]["license"]["identifier"], "Apache-2.0");
    let mut used = BTreeSet::new();
    schema::references(&document.json, &mut used);
    for reference in &used {
        assert!(document.json.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
    for name in document.json["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(&format!("#/components/schemas/{name}")), "nothing refers to {name}");
    }
    let mut ids = BTreeSet::new();
    for (path, method, operation) in document.operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{method} {path}");
        assert!(operation["responses"].as_object().unwrap().len() > 1, "{method} {path}");
    }
}

#[test]
fn its_bounds_are_the_servers_own() {
    let document = Document::of_the_code();
    let about = document.json["info"]["description"].as_str().unwrap();
    let head = format!("more than {} KiB is answered 431", limits::REQUEST_HEAD_BYTES_MAX >> 10);
    assert!(about.contains(&head), "{about}");
    let limit = &document.parameter("/changes", "limit")["schema"];
    assert_eq!(limit["maximum"], limits::CHANGES_LIMIT_MAX);
    assert_eq!(limit["default"], limits::CHANGES_LIMIT_DEFAULT);
    for path in ["/changes", "/snapshots"] {
        for name in ["scope", "selector"] {
            let scope = &document.parameter(path, name)["schema"]["items"];
            assert_eq!(scope["maxLength"], limits::SCOPE_BYTES_MAX);
        }
    }
    let create = &document.json["components"]["schemas"]["CreateTimerRequest"]["properties"];
    assert_eq!(create["id"]["maxLength"], limits::TIMER_ID_CHARS_MAX);
    assert_eq!(create["callbackTimeoutSeconds"]["maximum"], *limits::CALLBACK_TIMEOUT_SECONDS.end());
    assert_eq!(create["callbackTimeoutSeconds"]["default"], 30);
    let batch = &document.json["components"]["schemas"]["CreateTimersRequest"]["properties"]["timers"];
    assert_eq!((&batch["minItems"], &batch["maxItems"]), (&json!(1), &json!(limits::CREATE_BATCH_MAX)));
}
