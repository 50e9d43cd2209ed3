//! What a bench found: a figure with its spread, the target it is held against, and what limits it.

/// A figure of several rounds.
#[derive(Clone, Debug)]
pub struct Verdict {
    what: String,
    /// Sorted.
    values: Vec<f64>,
    target: Target,
    limit: String,
}

/// What a figure is held against, by its median.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Verdict {
    /// The figure `what`, one value of each round; `limit` says what it is that keeps it from being better.
    pub fn new(what: impl Into<String>, values: Vec<f64>, target: Target, limit: impl Into<String>) -> Self {
        assert!(!values.is_empty(), "a figure has a value");
        let mut values = values;
        values.sort_by(f64::total_cmp);
        let verdict = Self { what: what.into(), values, target, limit: limit.into() };
        println!("  {}", verdict.line());
        verdict
    }

    fn median(&self) -> f64 {
        crate::support::quantile(&self.values, 0.5)
    }

    fn is_met(&self) -> bool {
        match self.target {
            Target::AtLeast(bound) => self.median() >= bound,
            Target::AtMost(bound) => self.median() <= bound,
        }
    }

    fn line(&self) -> String {
        let (least, most) = (crate::support::quantile(&self.values, 0.0), crate::support::quantile(&self.values, 1.0));
        let target = match self.target {
            Target::AtLeast(bound) => format!("at least {bound}"),
            Target::AtMost(bound) => format!("at most {bound}"),
        };
        let met = if self.is_met() { "met" } else { "MISSED" };
        format!(
            "{:<62} {:8.3} {:8.3} {:8.3}   {target:<14} {met:<6}   {}",
            self.what,
            least,
            self.median(),
            most,
            self.limit
        )
    }
}

/// Prints all figures below each other, and says whether each met its target.
pub fn print_table(verdicts: &[Verdict]) -> bool {
    if verdicts.is_empty() {
        return true;
    }
    println!();
    println!("{:<62} {:>8} {:>8} {:>8}   {:<14} {:<6}   limit", "figure", "least", "median", "most", "target", "");
    for verdict in verdicts {
        println!("{}", verdict.line());
    }
    verdicts.iter().all(Verdict::is_met)
}

/// Whether a missed target is to be printed alone (`VERDICT=print`), and not to be the end of the run.
pub fn is_printed_alone() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a bench has no settings")]
    let given = std::env::var("VERDICT").ok();
    match given.as_deref() {
        None => false,
        Some("print") => true,
        Some(other) => panic!("VERDICT is print or not there, not {other:?}"),
    }
}
