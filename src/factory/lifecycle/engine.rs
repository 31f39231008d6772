//! What a lifecycle policy means for images: a plain function of the policy, facts and a time.
//!
//! Source: the "EC2 Image Builder User Guide", "Manage lifecycle policies". Its order: images from the newest to the oldest;
//! deprecate, disable, delete, and one action for an image in a run; retention is counted for each version of a recipe;
//! what a tag excludes takes no place among the retained; failed and cancelled images always qualify for deletion and take
//! no place either. What AWS lacks: nothing that is still used is touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Serialize;

use crate::document::lifecycle::{Action, AmiExclusions, Filter, LifecyclePolicy, Period, Rule, Selection, Unit};
use crate::store::manifest::State;
use crate::store::version::{ImageId, ImageName, Version};

/// Names and values.
pub type Tags = BTreeMap<String, String>;

/// What has to be known of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Which.
    pub id: ImageId,
    /// Its state.
    pub state: State,
    /// When it was begun.
    pub created: Timestamp,
    /// Its tags.
    pub tags: Tags,
    /// What uses it, for people: a channel, a running machine, a layer, a launch template.
    pub uses: Vec<String>,
    /// AMIs that were made of it and are still there.
    pub amis: Vec<AmiFacts>,
}

/// What has to be known of an AMI.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AmiFacts {
    /// Its identifier.
    pub id: String,
    /// Its region.
    pub region: String,
    /// Whether everybody may launch it.
    pub is_public: bool,
    /// The accounts that may launch it.
    pub shared_accounts: BTreeSet<String>,
    /// When it was launched last.
    pub last_launched: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
    /// Its snapshots.
    pub snapshots: Vec<String>,
}

/// What becomes of an image in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Which.
    pub image: ImageId,
    /// What is done; nothing, if none.
    pub action: Option<Action>,
    /// Why, in words.
    pub reason: String,
    /// AMIs of it that nothing is done to, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_amis: Vec<(String, String)>,
}

/// What a policy means for images at a time: a decision for each that it is about, the newest first.
pub fn decide(policy: &LifecyclePolicy, images: &[Facts], now: Timestamp) -> Vec<Decision> {
    let mut meant: Vec<&Facts> = images.iter().filter(|image| means(&policy.selection, image)).collect();
    meant.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let mut rules: Vec<&Rule> = policy.rules.iter().collect();
    rules.sort_by_key(|rule| rule.action);
    let places: Vec<BTreeMap<&ImageId, usize>> = rules.iter().map(|rule| places(rule, &meant)).collect();
    let decision = |image: &&Facts| {
        let qualified = rules.iter().zip(&places).map(|(rule, places)| {
            let place = places.get(&image.id).copied();
            (*rule, judge(rule, image, place, now))
        });
        decision(image, qualified.collect(), now)
    };
    meant.iter().map(decision).collect()
}

/// Of what each rule says of an image, the first that asks for something decides.
fn decision(image: &Facts, judged: Vec<(&Rule, Result<String, String>)>, now: Timestamp) -> Decision {
    let id = image.id.clone();
    let nothing = |reason: String| Decision { image: id.clone(), action: None, reason, skipped_amis: Vec::new() };
    if image.state.is_under_way() {
        return nothing(format!("it is still {}", image.state));
    }
    let mut kept = Vec::new();
    for (rule, verdict) in judged {
        match verdict {
            Ok(_) if !image.uses.is_empty() => {
                return nothing(format!(
                    "it is to be {}, and is still used: {}",
                    done(rule.action),
                    image.uses.join(", ")
                ));
            }
            Ok(reason) => {
                let excluded = image.amis.iter().filter(|_| rule.include.amis);
                let excluded =
                    excluded.filter_map(|ami| Some((ami.id.clone(), excludes(&rule.exclusions.amis, ami, now)?)));
                let skipped_amis = excluded.collect();
                return Decision { image: id, action: Some(rule.action), reason, skipped_amis };
            }
            Err(why) => kept.push(format!("{}: {why}", rule.action)),
        }
    }
    nothing(if kept.is_empty() { "no rule is about it".to_owned() } else { kept.join("; ") })
}

/// The place of each image among those of its version that may be retained, the newest first, from 0.
fn places<'a>(rule: &Rule, newest_first: &[&'a Facts]) -> BTreeMap<&'a ImageId, usize> {
    let mut counts: BTreeMap<(&ImageName, Version), usize> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for image in newest_first {
        if matches!(image.state, State::Available | State::Deprecated | State::Disabled)
            && matching_tag(&rule.exclusions.tags, &image.tags).is_none()
        {
            let count = counts.entry((&image.id.name, image.id.version)).or_default();
            places.insert(&image.id, *count);
            *count += 1;
        }
    }
    places
}

fn done(action: Action) -> &'static str {
    match action {
        Action::Deprecate => "deprecated",
        Action::Disable => "disabled",
        Action::Delete => "deleted",
    }
}

/// Whether there is still something to do to an image in a state.
fn applies(action: Action, state: State) -> bool {
    match action {
        Action::Deprecate => state == State::Available,
        Action::Disable => state.is_usable(),
        Action::Delete => !state.is_under_way(),
    }
}

/// Why a rule asks for its action, or why not.
fn judge(rule: &Rule, image: &Facts, place: Option<usize>, now: Timestamp) -> Result<String, String> {
    if !applies(rule.action, image.state) {
        return Err(format!("it is {}", image.state));
    }
    if let Some(tag) = matching_tag(&rule.exclusions.tags, &image.tags) {
        return Err(format!("its tag {tag} excludes it"));
    }
    if matches!(image.state, State::Failed | State::Cancelled | State::Deleted) {
        return Ok(format!("it is {}", image.state));
    }
    let place = place.unwrap_or(0);
    let reason = match rule.filter {
        Filter::AllBut(count) if place < count => {
            return Err(format!("it is one of the {count} newest of its version"));
        }
        Filter::AllBut(count) => format!("it is not one of the {count} newest of its version"),
        Filter::OlderThan(age) if !is_older(image.created, age, now) => {
            return Err(format!("it is not older than {}", describe(age)));
        }
        Filter::OlderThan(age) => format!("it is older than {}", describe(age)),
    };
    let retained = rule.retain_at_least;
    if place < retained {
        return Err(format!("it is one of the {retained} newest of its version, which are retained"));
    }
    Ok(reason)
}

/// Whether an image is among those that a policy is about.
pub(super) fn means(selection: &Selection, image: &Facts) -> bool {
    match selection {
        Selection::Recipes(recipes) => {
            recipes.iter().any(|(name, version)| *name == image.id.name && version.matches(image.id.version))
        }
        Selection::Tags(tags) => !tags.is_empty() && tags.iter().all(|(key, value)| image.tags.get(key) == Some(value)),
    }
}

/// Why nothing is done to an AMI.
fn excludes(exclusions: &AmiExclusions, ami: &AmiFacts, now: Timestamp) -> Option<String> {
    if exclusions.is_public && ami.is_public {
        return Some("it is public".to_owned());
    }
    if exclusions.regions.contains(&ami.region) {
        return Some(format!("it is in {}", ami.region));
    }
    if let Some(account) = exclusions.shared_accounts.iter().find(|account| ami.shared_accounts.contains(*account)) {
        return Some(format!("it is shared with {account}"));
    }
    if let (Some(period), Some(launched)) = (exclusions.last_launched, ami.last_launched)
        && !is_older(launched, period, now)
    {
        return Some(format!("it was launched in the last {}", describe(period)));
    }
    matching_tag(&exclusions.tags, &ami.tags).map(|tag| format!("its tag {tag} excludes it"))
}

fn describe(Period { value, unit }: Period) -> String {
    let unit = match unit {
        Unit::Days => "day",
        Unit::Weeks => "week",
        Unit::Months => "month",
        Unit::Years => "year",
    };
    format!("{value} {unit}{}", if value == 1 { "" } else { "s" })
}

/// Whether something happened so long ago or longer, by the calendar of UTC.
fn is_older(time: Timestamp, Period { value, unit }: Period, now: Timestamp) -> bool {
    let span = match unit {
        Unit::Days => Span::new().try_days(value),
        Unit::Weeks => Span::new().try_weeks(value),
        Unit::Months => Span::new().try_months(value),
        Unit::Years => Span::new().try_years(value),
    };
    // What lies beyond the calendar is older than nothing.
    let end = span.and_then(|span| time.to_zoned(TimeZone::UTC).checked_add(span));
    end.is_ok_and(|end| end.timestamp() <= now)
}

/// A tag that a rule names and something has, as `key=value`.
fn matching_tag(named: &[(String, String)], tags: &Tags) -> Option<String> {
    let mut matching = named.iter().filter(|(key, value)| tags.get(key) == Some(value));
    matching.next().map(|(key, value)| format!("{key}={value}"))
}
