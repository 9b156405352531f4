//! What an objective measures while it learns, as data: metrics, journal, curves, report, status page and model card go through such lists.

/// The unit of a number; it decides the panel of its curve and the family of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nats: a cross-entropy or an entropy.
    Nats,
    /// A share of something, 0 to 1.
    Share,
    /// A number of things, not necessarily whole.
    Count,
    /// None of these.
    Plain,
}

/// Which way a number should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Down.
    Lower,
    /// Up.
    Higher,
    /// Neither way is better by itself.
    Neither,
}

/// What a number is to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A term of the loss, before its weight: the series `splitmask_train_loss{term="NAME"}`.
    Term,
    /// A measurement beside it: the series `splitmask_train_objective_ratio{number="NAME"}` for shares, `…_objective_value` for others.
    Measure,
}

/// One number that an objective reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// Its name in `metrics.jsonl`, curves and metrics; snake_case.
    pub name: &'static str,
    /// What it is, with its unit, in words that stand by themselves; docs/monitoring.md shows it.
    pub help: &'static str,
    /// Term of the loss or not.
    pub role: Role,
    /// Unit.
    pub unit: Unit,
    /// Direction.
    pub better: Better,
    /// What somebody who has learnt nothing would score, where that is measured beside it.
    pub baseline: Option<Baseline>,
}

/// Where a curve of a number is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// With the losses.
    Losses,
    /// With other shares, 0 to 1.
    Shares,
}

impl Number {
    /// Where its curve is drawn; `None` = it has none.
    #[must_use]
    pub fn panel(&self) -> Option<Panel> {
        match (self.role, self.unit) {
            (Role::Term, _) | (_, Unit::Nats) => Some(Panel::Losses),
            (Role::Measure, Unit::Share) => Some(Panel::Shares),
            (Role::Measure, Unit::Count | Unit::Plain) => None,
        }
    }

    /// Its name for people: `match loss`, `token accuracy`.
    #[must_use]
    pub fn title(&self) -> String {
        let name = self.name.replace('_', " ");
        match self.role {
            Role::Term => format!("{name} loss"),
            Role::Measure => name,
        }
    }

    /// Its unit behind a value: ` nats`, or nothing.
    #[must_use]
    pub fn unit_behind(&self) -> &'static str {
        match self.unit {
            Unit::Nats => " nats",
            Unit::Share | Unit::Count | Unit::Plain => "",
        }
    }
}

/// What a number is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baseline {
    /// Name of the measured number.
    pub number: &'static str,
    /// Who scores that, in words: "a model that …".
    pub who: &'static str,
}
