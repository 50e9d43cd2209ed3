//! What a slot keeps of the WAL, and how near that brings it to its loss. Pure: it judges what a query has found.

use tokio_postgres::Row;

use super::Finding;
use crate::domain::limits::SLOT_WAL_PERCENTS;
use crate::feed::source::Kept;

/// A logical slot of the database.
pub(super) struct Slot {
    name: String,
    /// The name as SQL has it.
    literal: String,
    /// Somebody reads it.
    active: bool,
    /// Why it is lost, where it is.
    lost: Option<String>,
    kept: Kept,
}

impl Slot {
    pub(super) fn read(row: &Row) -> Self {
        let positive = |bytes: i64| bytes.max(0).cast_unsigned();
        Self {
            name: row.get("name"),
            literal: row.get("literal"),
            active: row.get("active"),
            lost: row.get::<_, bool>("lost").then(|| row.get("reason")),
            kept: Kept {
                bytes: positive(row.get("kept")),
                left: row.get::<_, Option<i64>>("left_bytes").map(positive),
            },
        }
    }

    pub(super) fn judge(&self) -> Finding {
        let Self { name, literal, .. } = self;
        let drop = format!("select pg_drop_replication_slot({literal})");
        if let Some(reason) = &self.lost {
            return Finding::error(format!("the slot {name} is lost ({reason}): its reader makes a new one"), drop);
        }
        let retains = self.retains();
        if !self.active {
            let what = format!("nobody reads the slot {name}, which {retains}: drop it if nobody will");
            return Finding::warning(what, drop);
        }
        let what = format!("the slot {name} is being read and {retains}");
        let [half, most] = SLOT_WAL_PERCENTS;
        match self.kept.percent() {
            Some(percent) if percent >= most => Finding::warning(format!("{what}: it is soon lost"), self.raise()),
            Some(percent) if percent >= half => Finding::warning(what, self.raise()),
            Some(_) | None => Finding::ok(what),
        }
    }

    fn retains(&self) -> String {
        let retains = format!("retains {} MiB of WAL", self.kept.bytes >> 20);
        match self.kept.percent() {
            Some(percent) => format!("{retains}, {percent} % of what max_slot_wal_keep_size allows"),
            None => retains,
        }
    }

    /// Lets the slot keep three times what it keeps now, which is more than it may.
    fn raise(&self) -> String {
        let mib = (self.kept.bytes >> 20).saturating_add(1).saturating_mul(3);
        format!("alter system set max_slot_wal_keep_size = '{mib}MB'; select pg_reload_conf()")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Level;

    #[test]
    fn a_slot_is_judged_by_how_much_it_keeps_of_what_it_may() {
        let slot = |kept: u64, left: Option<u64>| Slot {
            name: "s".to_owned(),
            literal: "'s'".to_owned(),
            active: true,
            lost: None,
            kept: Kept { bytes: kept << 20, left },
        };
        for (kept, left, level, what) in [
            (0, Some(100), Level::Ok, "retains 0 MiB of WAL, 0 % of what max_slot_wal_keep_size allows"),
            (49, Some(51), Level::Ok, "49 % of what max_slot_wal_keep_size allows"),
            (50, Some(50), Level::Warning, "50 % of what max_slot_wal_keep_size allows"),
            (79, Some(21), Level::Warning, "79 % of what max_slot_wal_keep_size allows"),
            (80, Some(20), Level::Warning, "80 % of what max_slot_wal_keep_size allows: it is soon lost"),
            (300, Some(0), Level::Warning, "100 % of what max_slot_wal_keep_size allows: it is soon lost"),
            // Without a bound there is no share.
            (1 << 20, None, Level::Ok, "retains 1048576 MiB of WAL"),
        ] {
            let slot = slot(kept, left.map(|left| left << 20));
            let finding = slot.judge();
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.what.ends_with(what), "{finding:?}");
            let unread = Slot { active: false, ..slot }.judge();
            assert_eq!(unread.level, Level::Warning, "{unread:?}");
            assert!(unread.fix_sql.is_some_and(|fix| fix.contains("pg_drop_replication_slot('s')")));
        }
    }
}
