//! Holds the messages to `proto/transicator.proto`: what clients generate from it must be what is sent.

use std::collections::BTreeMap;

const PROTO: &str = include_str!("../../../../proto/transicator.proto");
const RUST: &str = include_str!("mod.rs");

/// A field: its label, its type, and its number.
type Field = (String, String, u32);
/// The fields by message and name; those of a oneof are labelled `oneof` and its name.
type Messages = BTreeMap<(String, String), Field>;

/// The messages of the .proto file.
fn told() -> Messages {
    let mut messages = Messages::new();
    let (mut message, mut oneof) = (String::new(), None::<String>);
    for line in PROTO.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        let words: Vec<&str> = line.trim_end_matches([';', '{']).split_whitespace().collect();
        match (&words[..], &oneof) {
            ([], _) | (["syntax" | "package", ..], _) => {}
            (["message", name], None) => message = (*name).to_owned(),
            (["oneof", name], None) => oneof = Some((*name).to_owned()),
            (["}"], _) => oneof = None,
            ([label, kind, name, "=", number], None) => {
                let field = ((*label).to_owned(), (*kind).to_owned(), number.parse().expect("a number"));
                assert!(messages.insert((message.clone(), (*name).to_owned()), field).is_none(), "{name} twice");
            }
            ([kind, name, "=", number], Some(oneof)) => {
                let field = (format!("oneof {oneof}"), (*kind).to_owned(), number.parse().expect("a number"));
                assert!(messages.insert((message.clone(), (*name).to_owned()), field).is_none(), "{name} twice");
            }
            (_, _) => panic!("not understood: {line}"),
        }
    }
    messages
}

/// What a struct or an enum has: its fields or variants in the order of the file, with the words of their attributes.
struct Item {
    name: String,
    fields: Vec<(String, String, Vec<String>)>,
}

/// The structs and enums of the Rust file.
fn items() -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut attribute: Option<Vec<String>> = None;
    for line in RUST.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) {
            items.push(Item { name: name.trim_end_matches([' ', '{']).to_owned(), fields: Vec::new() });
        } else if let Some(words) = line.strip_prefix("#[prost(") {
            let words = words.trim_end_matches([')', ']']).replace(['"', ' '], "");
            assert!(attribute.replace(words.split(',').map(str::to_owned).collect()).is_none(), "{line}");
        } else if let Some(words) = attribute.take() {
            let field = line.trim_start_matches("pub ").trim_start_matches("r#").trim_end_matches(',');
            let end = field.find([':', '(']).unwrap_or_else(|| panic!("not a field: {line}"));
            let (name, kind) = field.split_at(end);
            let fields = &mut items.last_mut().expect("a field stands in an item").fields;
            fields.push((name.to_owned(), kind.trim_matches([':', ' ', '(', ')']).to_owned(), words));
        }
    }
    items
}

/// The name as protobuf has it: `commit_index` and `Table` are `commitIndex` and `table`, and an id is an `ID`.
fn camel(name: &str) -> String {
    let mut words = name.split('_').map(str::to_lowercase);
    let first = words.next().unwrap_or_default();
    let rest = words.map(|word| match word.as_str() {
        "id" => "ID".to_owned(),
        word => word[..1].to_uppercase() + &word[1..],
    });
    std::iter::once(first).chain(rest).collect()
}

/// One field as protobuf has it. The type of a message stands in the type of its Rust field alone.
fn field(rust_type: &str, words: &[String], label: Option<&str>) -> Field {
    let number = words.iter().find_map(|word| word.strip_prefix("tag=")).expect("a number");
    let is = |word: &str| words.iter().any(|found| found == word);
    let kind = match words.first().map(String::as_str) {
        Some("message") => rust_type.split('<').next_back().expect("a type").trim_end_matches('>'),
        kind => kind.expect("a type"),
    };
    let labelled = ["required", "optional", "repeated"].into_iter().find(|label| is(label));
    let label = label.or(labelled).unwrap_or("no label");
    (label.to_owned(), kind.to_owned(), number.parse().expect("a number"))
}

/// The messages of the Rust file.
fn sent() -> Messages {
    let items = items();
    let mut messages = Messages::new();
    for message in items.iter().filter(|item| item.name.ends_with("Pb")) {
        for (name, rust_type, words) in &message.fields {
            let Some(oneof) = words.iter().find_map(|word| word.strip_prefix("oneof=")) else {
                messages.insert((message.name.clone(), camel(name)), field(rust_type, words, None));
                continue;
            };
            let item = items.iter().find(|item| item.name == *oneof).expect("the fields of a oneof");
            let label = format!("oneof {name}");
            let mut numbers = Vec::new();
            for (variant, rust_type, words) in &item.fields {
                let field = field(rust_type, words, Some(&label));
                numbers.push(field.2.to_string());
                messages.insert((message.name.clone(), camel(variant)), field);
            }
            let listed: Vec<&str> = words.iter().skip(1).map(|word| word.trim_start_matches("tags=")).collect();
            assert_eq!(listed, numbers, "the numbers of the oneof in {}", message.name);
        }
    }
    messages
}

#[test]
fn what_is_sent_is_what_the_file_says() {
    let (told, sent) = (told(), sent());
    assert!(told.len() > 30, "{told:?}");
    assert_eq!(told[&("ChangePb".to_owned(), "transactionIDEpoch".to_owned())].2, 11);
    assert_eq!(sent, told);
}

#[test]
fn the_numbers_of_a_message_are_told_once() {
    let mut seen = BTreeMap::new();
    for ((message, name), (_, _, number)) in told() {
        let other = seen.insert((message.clone(), number), name.clone());
        assert!(other.is_none(), "{message}: {number} is {name} and {other:?}");
    }
}
