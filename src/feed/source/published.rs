//! What the publications have, as the catalogs say it.

use std::collections::{BTreeMap, HashSet};

use super::error::Error;
use super::server::{Server, get};

const LIST_PUBLISHED: &str = include_str!("../../../sql/queries/feed/list_published.sql");
const LIST_EXISTING: &str = include_str!("../../../sql/queries/feed/list_existing.sql");

/// The publications at one moment, by name.
pub type Published = BTreeMap<String, Publication>;

/// One publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Another one of the same name has another one.
    pub id: u32,
    /// Another one whenever it was altered, whatever of it.
    pub version: String,
    /// All that it says of itself, members apart.
    pub shape: String,
    /// It has all tables.
    pub has_all: bool,
    /// What it tells of.
    pub kinds: Kinds,
    /// The tables and schemas that it names, each by its name.
    pub members: BTreeMap<String, Member>,
}

/// A table or schema that a publication names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Another one whenever it was added.
    pub id: u32,
    /// The table; 0 for a schema.
    pub relation: u32,
    /// The name that its schema has as a member.
    pub schema: String,
    /// Which columns and rows of it are published.
    pub shape: String,
}

/// Kinds of changes: inserts, updates, deletes and truncates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kinds(pub [bool; 4]);

impl Server {
    /// What these publications have. Those that are not there are left out.
    pub async fn published(&self, names: &[String]) -> Result<Published, Error> {
        const DOING: &str = "asking what is published";
        let mut published = Published::new();
        for row in self.all(DOING, LIST_PUBLISHED, &[&names]).await? {
            let kinds: Vec<bool> = get(DOING, &row, 5)?;
            let kinds = kinds.try_into().map_err(|_| Error::Protocol { what: "what a publication tells of" })?;
            let empty = Publication {
                id: get(DOING, &row, 1)?,
                version: get(DOING, &row, 2)?,
                shape: get(DOING, &row, 3)?,
                has_all: get(DOING, &row, 4)?,
                kinds: Kinds(kinds),
                members: BTreeMap::new(),
            };
            let publication = published.entry(get(DOING, &row, 0)?).or_insert(empty);
            if let Some(id) = get::<Option<u32>>(DOING, &row, 6)? {
                let member = Member {
                    id,
                    relation: get(DOING, &row, 7)?,
                    schema: get(DOING, &row, 9)?,
                    shape: get(DOING, &row, 10)?,
                };
                publication.members.insert(get(DOING, &row, 8)?, member);
            }
        }
        Ok(published)
    }

    /// Which of these tables are still there, by oid.
    pub async fn existing(&self, tables: &[u32]) -> Result<HashSet<u32>, Error> {
        const DOING: &str = "asking which tables are there";
        self.all(DOING, LIST_EXISTING, &[&tables]).await?.iter().map(|row| get(DOING, row, 0)).collect()
    }
}
