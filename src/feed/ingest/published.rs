//! The watch over what is published. A table, or a kind of change, that is taken out of a publication for a while leaves a
//! hole in the feed: what is written meanwhile is told to nobody, and PostgreSQL says nothing of it. So it is said here.
//!
//! The feed does not begin anew for it: who takes a table out means that it is not told, and the other tables' readers miss
//! nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::watch;
use tracing::warn;

use crate::feed::source::{Error, Kinds, Member, Published, Server};

/// How long what was found is shown to who asks after readiness: it cannot be undone, and should be seen.
const SHOWN: Duration = Duration::from_secs(3600);
/// So many findings are shown at once, the newest.
const SHOWN_MAX: usize = 8;
/// So many tables are named in one line.
const NAMES_MAX: usize = 5;

/// Looks at what is published, and tells what shrank since it last looked.
pub(super) struct Watch {
    names: Vec<String>,
    every: Duration,
    looked_at: Option<Instant>,
    /// What was found last, also by an earlier connection.
    last: Option<Published>,
    found: VecDeque<(Instant, String)>,
    warning: watch::Sender<Option<String>>,
}

impl Watch {
    pub fn new(names: &[String], every: Duration) -> Self {
        let (warning, _) = watch::channel(None);
        Self { names: names.to_vec(), every, looked_at: None, last: None, found: VecDeque::new(), warning }
    }

    /// What somebody should know of what is published; none while nothing was found.
    pub fn warning(&self) -> watch::Receiver<Option<String>> {
        self.warning.subscribe()
    }

    /// Looks, where it is time to.
    pub async fn look(&mut self, server: &Server, now: Instant) -> Result<(), Error> {
        if self.looked_at.is_some_and(|at| now.duration_since(at) < self.every) {
            return Ok(());
        }
        self.looked_at = Some(now);
        let published = server.published(&self.names).await?;
        // What is written while a publication is gone ends the stream, and is a gap that readers are told of.
        if published.len() == self.names.iter().collect::<BTreeSet<_>>().len() {
            if let Some(before) = &self.last {
                let mut holes = holes(before, &published);
                let gone: Vec<u32> = holes.lost.keys().map(|(_, relation)| *relation).filter(|id| *id != 0).collect();
                if !gone.is_empty() {
                    let existing = server.existing(&gone).await?;
                    // The rows of a table that was dropped went without a change at any rate.
                    holes.lost.retain(|(_, relation), _| *relation == 0 || existing.contains(relation));
                }
                for text in holes.texts() {
                    counter!("walclock_feed_unpublished_total").increment(1);
                    warn!("readers of the feed miss changes and are not told: {text}");
                    self.found.push_back((now, text));
                }
            }
            self.last = Some(published);
        }
        self.show(now);
        Ok(())
    }

    fn show(&mut self, now: Instant) {
        self.found.drain(..self.found.len().saturating_sub(SHOWN_MAX));
        self.found.retain(|(at, _)| now.duration_since(*at) < SHOWN);
        let texts: Vec<&str> = self.found.iter().map(|(_, text)| text.as_str()).collect();
        let text = (!texts.is_empty()).then(|| texts.join("; "));
        self.warning.send_if_modified(|shown| {
            let news = *shown != text;
            *shown = text;
            news
        });
    }
}

/// What was published and is not, or was not for a while.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holes {
    /// The kinds of changes that are no longer told of a table, by its name and oid; of all tables, or those of a schema, 0.
    lost: BTreeMap<(String, u32), Lost>,
    /// Tables and schemas that were dropped from a publication and added again.
    again: BTreeSet<String>,
    /// Publications that were altered, and are as they were.
    altered: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Lost {
    kinds: Kinds,
    /// None is told any more.
    is_all: bool,
}

fn holes(before: &Published, now: &Published) -> Holes {
    let mut holes = Holes::default();
    for (publication, old) in before {
        let Some(new) = now.get(publication) else { continue };
        if old.has_all {
            holes.lose("all tables", 0, told(before, None), told(now, None));
        }
        for (name, member) in &old.members {
            let (name_now, member_now) = match new.members.get_key_value(name) {
                Some((name, member)) => (name, Some(member)),
                // It has another name now.
                None => match new.members.iter().find(|(_, now)| now.id == member.id) {
                    Some((name, member)) => (name, Some(member)),
                    None => (name, None),
                },
            };
            let was = told(before, Some((name, member)));
            let is = told(now, Some((name_now, member_now.unwrap_or(member))));
            let is_again =
                |now: &&Member| now.id != member.id && (now.relation, &now.shape) == (member.relation, &member.shape);
            if !holes.lose(name, member.relation, was, is) && old.id == new.id && member_now.filter(is_again).is_some()
            {
                holes.again.insert(name.clone());
            }
        }
        if old.id == new.id && old.version != new.version && old.shape == new.shape {
            holes.altered.insert(publication.clone());
        }
    }
    holes
}

/// Which changes the publications tell together: of a table or schema, or of all tables.
fn told(published: &Published, of: Option<(&String, &Member)>) -> Kinds {
    let mut kinds = Kinds::default();
    for publication in published.values() {
        let names = |(name, member): (&String, &Member)| {
            publication.members.contains_key(name) || publication.members.contains_key(&member.schema)
        };
        if publication.has_all || of.is_some_and(names) {
            kinds.0.iter_mut().zip(publication.kinds.0).for_each(|(kind, has)| *kind |= has);
        }
    }
    kinds
}

impl Holes {
    /// Notes what is no longer told; whether there is any.
    fn lose(&mut self, name: &str, relation: u32, was: Kinds, is: Kinds) -> bool {
        let mut kinds = was;
        kinds.0.iter_mut().zip(is.0).for_each(|(kind, still)| *kind &= !still);
        if kinds == Kinds::default() {
            return false;
        }
        self.lost.insert((name.to_owned(), relation), Lost { kinds, is_all: is == Kinds::default() });
        true
    }

    /// For people, a line for what happened in the same way.
    fn texts(&self) -> Vec<String> {
        let mut alike: BTreeMap<Option<Kinds>, Vec<&str>> = BTreeMap::new();
        for ((name, _), lost) in &self.lost {
            alike.entry((!lost.is_all).then_some(lost.kinds)).or_default().push(name);
        }
        let lost = alike.into_iter().map(|(kinds, names)| match kinds {
            None => format!("no longer published: {}", listed(names)),
            Some(kinds) => format!("{} no longer published: {}", words(kinds), listed(names)),
        });
        let line = |names: &BTreeSet<String>, what: &str| {
            (!names.is_empty()).then(|| format!("{what}: {}", listed(names.iter().map(String::as_str).collect())))
        };
        let again = line(&self.again, "dropped from the publication and added again");
        let altered = line(&self.altered, "publications that were altered, and altered back");
        lost.chain(again).chain(altered).collect()
    }
}

fn words(kinds: Kinds) -> String {
    let words = ["inserts", "updates", "deletes", "truncates"].into_iter().zip(kinds.0);
    words.filter_map(|(word, has)| has.then_some(word)).collect::<Vec<_>>().join(", ")
}

fn listed(names: Vec<&str>) -> String {
    let mut text = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMES_MAX) {
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::feed::source::Publication;

    const ALL: Kinds = Kinds([true; 4]);

    fn publication(kinds: Kinds, members: &[(&str, u32)]) -> Publication {
        let member = |(name, id): &(&str, u32)| {
            let (schema, table) = name.split_once('.').unwrap_or((name, ""));
            let schema = format!("tables in schema {schema}");
            let relation = u32::try_from(table.len()).expect("short names");
            let name = if table.is_empty() { schema.clone() } else { (*name).to_owned() };
            (name, Member { id: *id, relation, schema, shape: String::new() })
        };
        Publication { id: 1, kinds, members: members.iter().map(member).collect(), ..Publication::default() }
    }

    fn texts(before: &[Publication], now: &[Publication]) -> Vec<String> {
        let published = |all: &[Publication]| (0..).map(|n: u32| n.to_string()).zip(all.to_vec()).collect();
        holes(&published(before), &published(now)).texts()
    }

    #[test]
    fn what_is_no_longer_published_is_named() {
        let inserts = Kinds([true, false, false, false]);
        let both = publication(ALL, &[("public.a", 1), ("public.bb", 2)]);
        let everything = Publication { has_all: true, ..publication(ALL, &[]) };
        for (before, now, told) in [
            (vec![both.clone()], vec![both.clone()], vec![]),
            (vec![both.clone()], vec![publication(ALL, &[("public.a", 1)])], vec!["no longer published: public.bb"]),
            (
                vec![both.clone()],
                vec![publication(inserts, &[("public.a", 1), ("public.bb", 2)])],
                vec!["updates, deletes, truncates no longer published: public.a, public.bb"],
            ),
            // What is added, or published in another way, is no hole.
            (vec![publication(inserts, &[("public.a", 1)])], vec![both.clone()], vec![]),
            (vec![both.clone()], vec![publication(ALL, &[("public", 9)])], vec![]),
            (vec![both.clone()], vec![everything.clone()], vec![]),
            (vec![both.clone(), publication(ALL, &[])], vec![publication(ALL, &[]), both.clone()], vec![]),
            (vec![both.clone()], vec![publication(ALL, &[("public.a", 1), ("other.renamed", 2)])], vec![]),
            (vec![everything], vec![both.clone()], vec!["no longer published: all tables"]),
            (
                vec![publication(ALL, &[("public", 9)])],
                vec![both.clone()],
                vec!["no longer published: tables in schema public"],
            ),
        ] {
            assert_eq!(texts(&before, &now), told, "{before:?} to {now:?}");
        }
    }

    #[test]
    fn what_was_not_published_for_a_moment_is_named() {
        let compare = |before: &Publication, now: &Publication| texts(from_ref(before), from_ref(now));
        let before = publication(ALL, &[("public.a", 1), ("public.bb", 2)]);
        let again = publication(ALL, &[("public.a", 1), ("public.bb", 3)]);
        let told = "dropped from the publication and added again: public.bb";
        assert_eq!(compare(&before, &again), [told]);
        let altered = Publication { version: "9".to_owned(), ..before.clone() };
        assert_eq!(compare(&before, &altered), ["publications that were altered, and altered back: 0"]);
        // Another owner, say; another table of the name; other columns of it; another publication, which is a gap.
        let otherwise = Publication { shape: "other".to_owned(), ..altered };
        assert_eq!(compare(&before, &otherwise), [""; 0]);
        for change in
            [|member: &mut Member| member.relation = 99, |member: &mut Member| member.shape = "other".to_owned()]
        {
            let mut now = again.clone();
            now.members.values_mut().for_each(change);
            assert_eq!(compare(&before, &now), [""; 0]);
        }
        assert_eq!(compare(&before, &Publication { id: 2, ..again }), [""; 0]);
    }

    #[test]
    fn few_of_many_are_named() {
        let names: Vec<String> = (0..9).map(|n| format!("public.t{n}")).collect();
        let members: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(1..).collect();
        let told = texts(&[publication(ALL, &members)], &[publication(ALL, &[])]);
        let named = "no longer published: public.t0, public.t1, public.t2, public.t3, public.t4 and 4 more";
        assert_eq!(told, [named]);
    }
}
