//! The words of a connection string: `key=value` pairs, from libpq's own form or from the query of a URL. Pure.

use super::Error;

/// One `key=value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The key.
    pub key: String,
    /// The value, with escapes and quotes resolved.
    pub value: String,
    /// How it was written, where it came from a URL: percent-encoding must survive as it is.
    raw: Option<String>,
}

/// A connection string, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// A URL up to its query; none for libpq's form.
    url: Option<String>,
    /// The pairs, in the order given.
    pub list: Vec<Word>,
}

impl Words {
    /// Takes `postgres://…?key=value&…` or `key=value key='a value'` apart.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scheme = ["postgres://", "postgresql://"].into_iter().find(|scheme| text.starts_with(scheme));
        let Some(rest) = scheme.and_then(|scheme| text.strip_prefix(scheme)) else {
            return Ok(Self { url: None, list: pairs(text)? });
        };
        // A `?` before the `@` is part of the password.
        let host_at = rest.find('@').filter(|at| !rest.get(..*at).unwrap_or_default().contains('/')).unwrap_or(0);
        let query_at = rest.get(host_at..).and_then(|tail| tail.find('?')).map(|at| host_at.saturating_add(at));
        let (head, query) = match query_at.and_then(|at| Some((rest.get(..at)?, rest.get(at.checked_add(1)?..)?))) {
            Some((head, query)) => (head, query),
            None => (rest, ""),
        };
        let list = query.split('&').filter(|part| !part.is_empty()).map(from_query).collect::<Result<_, _>>()?;
        Ok(Self { url: Some(format!("{}{head}", scheme.unwrap_or_default())), list })
    }

    /// Takes the last word of this key out, and every other of the same key with it.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let mut found = None;
        self.list.retain_mut(|word| {
            let other = word.key != key;
            if !other {
                found = Some(std::mem::take(&mut word.value));
            }
            other
        });
        found
    }

    /// What is left, as a connection string again.
    pub fn text(&self) -> String {
        let written = self.list.iter().map(Word::written).collect::<Vec<_>>();
        match &self.url {
            Some(url) if written.is_empty() => url.clone(),
            Some(url) => format!("{url}?{}", written.join("&")),
            None => written.join(" "),
        }
    }
}

impl Word {
    /// The word alone in libpq's form, quoted.
    pub fn quoted(&self) -> String {
        format!("{}='{}'", self.key, self.value.replace('\\', r"\\").replace('\'', r"\'"))
    }

    fn written(&self) -> String {
        self.raw.clone().unwrap_or_else(|| self.quoted())
    }
}

fn from_query(part: &str) -> Result<Word, Error> {
    // In a connection string a plus is a plus.
    let plain = part.replace('+', "%2B");
    let (key, value) = url::form_urlencoded::parse(plain.as_bytes()).next().unwrap_or_default();
    if !is_name(&key) {
        return Err(Error::Form);
    }
    if !part.contains('=') {
        return Err(Error::Syntax { what: "a value is missing", after: key.into_owned() });
    }
    Ok(Word { key: key.into_owned(), value: value.into_owned(), raw: Some(part.to_owned()) })
}

/// libpq's form: values may stand in single quotes; a backslash takes the next character as it is.
fn pairs(text: &str) -> Result<Vec<Word>, Error> {
    let mut list = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, tail) = match rest.split_once('=') {
            Some((key, tail)) if is_name(key.trim_end()) => (key.trim_end(), tail),
            // What stands here may be a stray part of a password, so it is not shown.
            _ => {
                return Err(match list.last() {
                    Some(Word { key, .. }) => Error::Syntax { what: "a `=` is missing", after: key.clone() },
                    None => Error::Form,
                });
            }
        };
        let (value, tail) = value(key, tail.trim_start())?;
        list.push(Word { key: key.to_owned(), value, raw: None });
        rest = tail.trim_start();
    }
    Ok(list)
}

/// The value at the start of `text`, and what follows it.
fn value<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), Error> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        let before = characters.as_str();
        match characters.next() {
            None if quoted => {
                return Err(Error::Syntax { what: "a quote is never closed", after: key.to_owned() });
            }
            None => return Ok((value, "")),
            Some('\'') if quoted => return Ok((value, characters.as_str())),
            Some(space) if !quoted && space.is_whitespace() => return Ok((value, before)),
            Some('\\') => value.extend(characters.next()),
            Some(other) => value.push(other),
        }
    }
}

/// Whether it may be a key. What is none may be a part of a password that was not encoded.
fn is_name(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        let words = Words::parse(text).expect("readable");
        words.list.into_iter().map(|word| (word.key, word.value)).collect()
    }

    #[test]
    fn words_of_both_forms() {
        for (text, expected) in [
            ("host=a port=1", vec![("host", "a"), ("port", "1")]),
            (" host = a  user='it s'", vec![("host", "a"), ("user", "it s")]),
            (r"password='a \'b\' \\' user=c\ d", vec![("password", r"a 'b' \"), ("user", "c d")]),
            ("password=''", vec![("password", "")]),
            ("postgres://u:p@h/d", vec![]),
            (
                "postgres://u:p?x@h/d?sslmode=require&options=-c%20a%3Db+c",
                vec![("sslmode", "require"), ("options", "-c a=b+c")],
            ),
            ("postgres://h/d?sslrootcert=/a@b", vec![("sslrootcert", "/a@b")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_left_keeps_its_encoding() {
        let mut words = Words::parse("postgres://u:p%40@h/d?a=%2F&sslmode=x&b=%20&sslmode=y").expect("readable");
        assert_eq!(words.take("sslmode").as_deref(), Some("y"));
        assert_eq!(words.text(), "postgres://u:p%40@h/d?a=%2F&b=%20");
        assert_eq!(words.take("sslmode"), None);
    }

    #[test]
    fn a_broken_text_is_an_error_that_shows_no_value() {
        for text in [
            "host",
            "password=secret stray",
            "password='secret",
            "=x",
            "postgres://h/d?sslmode",
            "mysql://u:secret@h/d?a=b",
            "postgres:/u:secret@h/d?a=b",
            "postgres://u:a/b?secret@h/d",
            "postgres://u:a/b?secret@h/d=c",
            "secret stray=x",
        ] {
            let error = Words::parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret") && !error.contains("stray"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn quoting_round_trips(value in "\\PC{0,40}") {
            let word = Word { key: "password".to_owned(), value: value.clone(), raw: None };
            prop_assert_eq!(parsed(&word.quoted()), vec![("password".to_owned(), value)]);
        }

        #[test]
        fn parsing_never_panics(text in "(postgres://)?[a?&@/%='\\\\ é:]{0,30}") {
            let _ = Words::parse(&text);
        }
    }
}
