//! Compact JSON for human eyes. It is moved apart, not understood: every value stays as the feed wrote it.

use bytes::Bytes;

use super::body::JsonPage;

/// The whole page, indented by two spaces a level, with a newline at its end.
pub(super) fn indented(mut page: JsonPage) -> Bytes {
    let mut indent = Indent::default();
    while let Some(chunk) = page.chunk() {
        chunk.iter().for_each(|byte| indent.take(*byte));
    }
    indent.out.push(b'\n');
    indent.out.into()
}

#[derive(Default)]
struct Indent {
    out: Vec<u8>,
    depth: usize,
    /// Just behind an opening bracket.
    opened: bool,
    in_string: bool,
    escaped: bool,
}

impl Indent {
    fn take(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return self.out.push(byte);
        }
        let closes = matches!(byte, b']' | b'}');
        if closes {
            self.depth = self.depth.saturating_sub(1);
        }
        // An empty list or object stays on its line.
        if self.opened != closes {
            self.new_line();
        }
        self.opened = matches!(byte, b'[' | b'{');
        self.in_string = byte == b'"';
        self.out.push(byte);
        match byte {
            b'[' | b'{' => self.depth += 1,
            b',' => self.new_line(),
            b':' => self.out.push(b' '),
            _ => {}
        }
    }

    fn new_line(&mut self) {
        self.out.push(b'\n');
        self.out.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn check(json: &Value) {
        let page = JsonPage::new(Bytes::new(), vec![Bytes::from(json.to_string())], Bytes::new());
        let indented = String::from_utf8(indented(page).to_vec()).expect("JSON is UTF-8");
        assert_eq!(indented, serde_json::to_string_pretty(json).expect("a value") + "\n");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,5}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    #[test]
    fn brackets_in_texts_are_text() {
        check(&serde_json::json!({"a": "{\"[,:\\", "b": [], "c": {}, "d": [1, {"e": [[]]}]}));
    }

    proptest! {
        #[test]
        fn it_looks_as_serde_json_would_have_it(json in any_json()) {
            check(&json);
        }
    }
}
