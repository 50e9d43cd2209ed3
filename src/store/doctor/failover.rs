//! What a promotion of a standby would mean for the feed. Pure: it judges what a query has found.

use tokio_postgres::Row;

use super::Finding;

/// What decides it.
pub(super) struct Failover {
    standby: bool,
    /// Physical slots: where there are any, there are standbys.
    physical: Vec<String>,
    /// Logical slots that do not follow to a standby.
    left_behind: Vec<String>,
    /// Logical slots that have followed to this standby for good.
    synced: Vec<String>,
    /// `synchronized_standby_slots`, where it is set.
    waited_for: Option<String>,
    /// `sync_replication_slots`; none before PostgreSQL 17.
    synchronizes: Option<String>,
    feedback: String,
}

impl Failover {
    pub(super) fn read(row: &Row) -> Self {
        Self {
            standby: row.get("standby"),
            physical: row.get("physical"),
            left_behind: row.get("left_behind"),
            synced: row.get("synced"),
            waited_for: row.get("waited_for"),
            synchronizes: row.get("synchronizes"),
            feedback: row.get("feedback"),
        }
    }

    /// Nothing where there is no standby to promote.
    pub(super) fn judge(&self) -> Vec<Finding> {
        match (&self.synchronizes, self.standby, self.physical.is_empty()) {
            (_, false, true) => Vec::new(),
            (None, _, _) => vec![Finding::ok(
                "before PostgreSQL 17 a slot does not follow to a standby: after a promotion the feed begins anew"
                    .to_owned(),
            )],
            (Some(synchronizes), true, _) => self.judge_standby(synchronizes == "on"),
            (Some(_), false, false) => self.judge_primary(),
        }
    }

    fn judge_standby(&self, synchronizes: bool) -> Vec<Finding> {
        if !synchronizes || self.feedback != "on" {
            return vec![Finding::warning(
                "this standby does not synchronize slots: the feed begins anew when it is promoted".to_owned(),
                "alter system set sync_replication_slots = on; alter system set hot_standby_feedback = on; \
                 select pg_reload_conf() -- and give it a primary_slot_name, and a dbname in primary_conninfo"
                    .to_owned(),
            )];
        }
        match self.synced.is_empty() {
            true => vec![Finding::warning(
                "no slot of this database has followed to this standby yet: the feed would begin anew if it were promoted now"
                    .to_owned(),
                "select pg_log_standby_snapshot() -- on the primary, while a changeserver reads; then look again".to_owned(),
            )],
            false => vec![Finding::ok(format!("ready for a promotion: {}", self.synced.join(", ")))],
        }
    }

    fn judge_primary(&self) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .left_behind
            .iter()
            .map(|slot| {
                Finding::warning(
                    format!("the slot {slot} does not follow to a standby: the feed begins anew after a promotion"),
                    format!(
                        "ALTER_REPLICATION_SLOT \"{slot}\" (FAILOVER true) -- on a replication connection, while nobody reads it"
                    ),
                )
            })
            .collect();
        findings.push(match &self.waited_for {
            Some(names) => Finding::ok(format!("the feed hears of nothing before {names} has it")),
            None => Finding::warning(
                "synchronized_standby_slots is empty: the feed may get ahead of a standby, and begins anew if that is promoted"
                    .to_owned(),
                format!(
                    "alter system set synchronized_standby_slots = '{}'; select pg_reload_conf() -- the feed then waits for them",
                    self.physical.join(", ")
                ),
            ),
        });
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A primary of PostgreSQL 17 where all is well.
    fn primary() -> Failover {
        Failover {
            standby: false,
            physical: names(&["a", "b"]),
            left_behind: Vec::new(),
            synced: Vec::new(),
            waited_for: Some("a".to_owned()),
            synchronizes: Some("off".to_owned()),
            feedback: "off".to_owned(),
        }
    }

    fn standby() -> Failover {
        let on = || "on".to_owned();
        Failover { standby: true, synced: names(&["walclock"]), synchronizes: Some(on()), feedback: on(), ..primary() }
    }

    #[test]
    fn what_a_promotion_would_do_is_told() {
        use Level::{Ok, Warning};
        for (failover, expected) in [
            (Failover { physical: Vec::new(), waited_for: None, ..primary() }, vec![]),
            (Failover { synchronizes: None, ..primary() }, vec![(Ok, "before PostgreSQL 17")]),
            (Failover { synchronizes: None, ..standby() }, vec![(Ok, "before PostgreSQL 17")]),
            (primary(), vec![(Ok, "before a has it")]),
            (Failover { waited_for: None, ..primary() }, vec![(Warning, "synchronized_standby_slots is empty")]),
            (
                Failover { left_behind: names(&["x"]), ..primary() },
                vec![(Warning, "the slot x does not follow"), (Ok, "before a has it")],
            ),
            (standby(), vec![(Ok, "ready for a promotion: walclock")]),
            (Failover { synced: Vec::new(), ..standby() }, vec![(Warning, "has followed to this standby yet")]),
            (Failover { feedback: "off".to_owned(), ..standby() }, vec![(Warning, "does not synchronize slots")]),
            (Failover { synchronizes: Some("off".to_owned()), ..standby() }, vec![(Warning, "does not synchronize")]),
        ] {
            let found = failover.judge();
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (finding, (level, part)) in found.iter().zip(expected) {
                assert!(finding.level == level && finding.what.contains(part), "{finding:?}, not {part}");
            }
        }
        let fix = Failover { waited_for: None, ..primary() }.judge().remove(0).fix_sql;
        assert!(fix.is_some_and(|fix| fix.contains("= 'a, b'")));
    }
}
