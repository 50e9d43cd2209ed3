//! `walclock schedules`, run as a user runs it.

use std::process::Command;

use crate::support::migrated;

/// Runs the command, and returns whether it succeeded, what it printed, and what it printed as errors.
async fn schedules(url: &str, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
    command.args(["--log", "off", "schedules"]).args(arguments).args(["--database-url", url]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_created_shown_paused_triggered_and_deleted() {
    let url = migrated().await;
    let create =
        ["create", "--id", "tea", "--cron", "0 16 * * *", "--time-zone", "Europe/London", "--url", "http://x/"];
    assert_eq!(schedules(&url, &create).await, (true, "created default/tea\n".to_owned(), String::new()));
    let (_, out, _) = schedules(&url, &["get", "--id", "tea"]).await;
    assert!(
        out.starts_with("schedule      default/tea\nrecurs        0 16 * * * (Europe/London)\nnext          soon\n"),
        "{out}"
    );
    for (act, said) in [("pause", "paused default/tea\n"), ("resume", "resumed default/tea\n")] {
        assert_eq!(schedules(&url, &[act, "--id", "tea"]).await.1, said);
        let (_, out, _) = schedules(&url, &["get", "--id", "tea", "--json"]).await;
        let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(shown["paused"], act == "pause");
    }
    let (_, out, _) = schedules(&url, &["trigger", "--id", "tea"]).await;
    assert!(out.starts_with("tea@2") && out.ends_with("Z\n"), "{out}");
    let (_, out, _) = schedules(&url, &["list"]).await;
    assert_eq!(out, "tea  soon  0 16 * * * (Europe/London)\n");
    let delete = ["delete", "--id", "tea"];
    assert_eq!(schedules(&url, &delete).await, (true, "deleted default/tea\n".to_owned(), String::new()));
    for act in ["delete", "get", "pause", "resume", "trigger"] {
        let error = "walclock: there is no schedule default/tea\n".to_owned();
        assert_eq!(schedules(&url, &[act, "--id", "tea"]).await, (false, String::new(), error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_one_line_that_names_the_flag() {
    let url = migrated().await;
    let create = ["create", "--id", "a", "--url", "http://x/"];
    for (more, line) in [
        (&["--cron", "0 25 * * *"][..], "--cron must be a cron expression; its hour \"25\""),
        (&["--cron", "* * * * *", "--time-zone", "Mars"][..], "--time-zone must be the name of an IANA time zone"),
        (&["--every", "1ms"][..], "--every must be a duration from 1s to"),
        (&["--every", "1m", "--overlap", "no"][..], "--overlap must be skip, allow, buffer_one or cancel_other"),
        (&["--every", "1m", "--catch-up", "no"][..], "--catch-up must be none, last or all"),
        (&["--every", "1m", "--catch-up-max", "0"][..], "--catch-up-max must be a whole number from 1 to 1000"),
        (&["--every", "1m", "--jitter", "25h"][..], "--jitter must be a duration of at most 24h"),
        (&["--every", "1m", "--timeout", "0"][..], "--timeout must be a whole number of seconds"),
        (&["--every", "1m", "--payload", "[]"][..], "--payload must be a JSON object"),
    ] {
        let (done, out, error) = schedules(&url, &[&create[..], more].concat()).await;
        assert!(!done && out.is_empty() && error.lines().count() == 1, "{error}");
        assert!(error.starts_with(&format!("walclock: {line}")), "{error}");
    }
}
