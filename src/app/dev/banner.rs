//! What `walclock dev` prints once it is ready: where it is, and four things to try that work when they are pasted.

use std::borrow::Cow;
use std::path::Path;

/// What the text is about.
pub(super) struct Banner<'a> {
    /// How to call this program.
    pub(super) program: &'a Path,
    pub(super) url: &'a str,
    pub(super) database_url: &'a str,
    /// How to call psql, where it is installed.
    pub(super) psql: Option<&'a Path>,
    pub(super) folder: &'a Path,
    /// Whether the folder goes with the process.
    pub(super) ephemeral: bool,
}

impl Banner<'_> {
    /// The whole text.
    pub(super) fn text(&self) -> String {
        let Self { program, url, database_url, psql, folder, ephemeral } = self;
        let (program, folder) = (quoted(program), folder.display());
        let psql_line = format!("{} {database_url}", psql.map_or("psql".into(), quoted));
        let hint = if psql.is_some() { "" } else { "   (psql is not installed here)" };
        let end = match ephemeral {
            true => ", and removes the folder",
            false => "; the next start on the same folder finds it again",
        };
        format!(
            r#"
walclock is ready.

  HTTP        {url}
  PostgreSQL  {psql_line}{hint}
  Folder      {folder}

Try, in another terminal:

  1. A timer by SQL, due at once: it calls this server's own /dev/echo, and the line in this log says how late it was.

     {psql_line} -c "insert into walclock.timers (namespace, id, execute_at, callback_url, payload) values ('default', 'sql-' || gen_random_uuid(), now(), '{url}/dev/echo', '{{\"hello\": \"sql\"}}')"

  2. A timer by HTTP, five seconds ahead. What has arrived so far: curl -s {url}/dev/echo

     curl -s {url}/api/v1/timers/create -H 'content-type: application/json' -d '{{"namespace": "default", "id": "http", "executeAt": "'$(date -u -d '+5 seconds' +%FT%TZ)'", "callbackUrl": "{url}/dev/echo", "payload": {{"hello": "http"}}}}'

  3. A row of a published table, and its change; with &since=<lastSequence> the same call waits for the next one.

     {psql_line} -c "insert into notes (_change_selector, body) values ('demo', 'hello')"

     curl -s '{url}/changes?scope=demo&block=60&pretty'

  4. A callback that recurs, and what has become of all timers.

     {program} schedules create --id tick --every 5s --url {url}/dev/echo --make-namespace --database-url {database_url}

     {program} timers list --database-url {database_url}

Ctrl-C stops everything{end}.
"#
        )
    }
}

/// The path as one word of a shell.
fn quoted(path: &Path) -> Cow<'_, str> {
    let path = path.to_string_lossy();
    match path.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c)) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_to_paste_carry_the_addresses() {
        let text = Banner {
            program: Path::new("/bin/walclock"),
            url: "http://127.0.0.1:8080",
            database_url: "postgres://p@h/d",
            psql: None,
            folder: Path::new("/x"),
            ephemeral: true,
        }
        .text();
        assert!(text.ends_with("Ctrl-C stops everything, and removes the folder.\n"), "{text}");
        assert!(text.contains("psql postgres://p@h/d -c \"insert into walclock.timers"), "{text}");
        assert!(text.contains(r#"'{\"hello\": \"sql\"}'"#), "{text}");
        assert!(text.contains("curl -s http://127.0.0.1:8080/api/v1/timers/create"), "{text}");
        assert!(text.contains("psql is not installed"), "{text}");
        assert!(text.contains("/bin/walclock timers list --database-url postgres://p@h/d\n"), "{text}");
    }

    #[test]
    fn a_path_is_one_word() {
        for (path, word) in [("/a/b-c_1.2+x", "/a/b-c_1.2+x"), ("/a b/c", "'/a b/c'"), ("/it's", r"'/it'\''s'")] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
