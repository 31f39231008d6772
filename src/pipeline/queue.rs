//! Which builds may begin: a pure function of what waits, what runs, and what the host has.
//!
//! Builds wait for memory, cores and disk, not for a number of places. They begin by priority and age. One that waits
//! for what other builds have is not overtaken, else small builds would keep a large one waiting for ever. One that waits
//! for disk, or for memory that other programs have, which may be until somebody makes room, is; and so is one that waits
//! for a build whose layers it will share.

use serde::{Deserialize, Serialize};

use crate::document::size::Size;

/// What a build takes of the host while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// Memory, in bytes.
    pub memory: u64,
    /// Processors of its guest.
    pub cpus: u32,
    /// Space that it may write, in bytes.
    pub disk: u64,
}

/// What the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    /// All of its memory, in bytes.
    pub memory: u64,
    /// Memory that programs can still get, in bytes.
    pub memory_available: u64,
    /// Its processors.
    pub cpus: u32,
    /// Space that can still be written in the store, in bytes.
    pub disk_free: u64,
}

/// A build that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// What it takes.
    pub needs: Needs,
    /// Builds of the same group run one after the other: the first leaves layers that the others begin with.
    pub group: String,
}

/// What becomes of a build that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It begins.
    Begin,
    /// It waits, and for what.
    Wait(String),
    /// It would wait for ever, and why.
    Never(String),
}

/// Memory that is left to the host itself, in bytes.
const RESERVE: u64 = 512 << 20;
/// Space that is left in the store, in bytes.
const DISK_RESERVE: u64 = 1 << 30;

impl Host {
    /// What the host has now, with the store at `root`.
    pub(super) fn look(root: &std::path::Path) -> std::io::Result<Self> {
        let text = fs_err::read_to_string("/proc/meminfo")?;
        // proc(5): in kB.
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            memory: field("MemTotal"),
            memory_available: field("MemAvailable"),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            disk_free: crate::host::file::free_space(root)?,
        })
    }
}

/// What becomes of each build that waits, in the order in which they would begin.
///
/// Memory counts twice: all that runs has to fit into the host with what it was promised, which a guest touches only by
/// and by, and what begins now has to fit into what is free now, which other programs use too.
pub(super) fn admit(waiting: &[Entry], running: &[Entry], host: &Host) -> Vec<Verdict> {
    let mut taken = Needs::default();
    for entry in running {
        taken = taken.with(entry.needs);
    }
    let mut groups: Vec<&str> = running.iter().map(|entry| entry.group.as_str()).collect();
    let mut begun = Needs::default();
    let mut is_held = false;
    let mut verdicts = Vec::new();
    for Entry { needs, group } in waiting {
        let verdict = if let Some(why) = never(needs, host) {
            Verdict::Never(why)
        } else if groups.contains(&group.as_str()) {
            Verdict::Wait("for a build whose layers it shares".to_owned())
        } else if is_held {
            Verdict::Wait("for its turn".to_owned())
        } else if let Some(why) = short_of_disk(needs, taken, host) {
            Verdict::Wait(why)
        } else if let Some(why) = short(needs, taken, begun, host) {
            // What builds were promised they hardly use all, so this may hold the others up, but not once nothing runs.
            let promised = taken.memory.saturating_sub(begun.memory);
            is_held = needs.memory <= host.memory_available.saturating_add(promised);
            Verdict::Wait(why)
        } else {
            Verdict::Begin
        };
        if verdict == Verdict::Begin {
            taken = taken.with(*needs);
            begun = begun.with(*needs);
        }
        if !matches!(verdict, Verdict::Never(_)) {
            // Also of one that waits: who shares layers with it comes after it.
            groups.push(group);
        }
        verdicts.push(verdict);
    }
    verdicts
}

fn never(needs: &Needs, host: &Host) -> Option<String> {
    (needs.memory > host.memory).then(|| {
        let (needs, has) = (Size(needs.memory), Size(host.memory));
        format!("it needs {needs} of memory with its machine's own, and this host has {has}")
    })
}

fn short_of_disk(needs: &Needs, taken: Needs, host: &Host) -> Option<String> {
    let wanted = needs.disk.saturating_add(taken.disk).saturating_add(DISK_RESERVE);
    (wanted > host.disk_free).then(|| {
        let (needs, free) = (Size(needs.disk), Size(host.disk_free.saturating_sub(taken.disk + DISK_RESERVE)));
        format!("for disk: it needs {needs}, and {free} are left")
    })
}

fn short(needs: &Needs, taken: Needs, begun: Needs, host: &Host) -> Option<String> {
    let free = host.memory.saturating_sub(RESERVE).saturating_sub(taken.memory);
    let free = free.min(host.memory_available.saturating_sub(begun.memory));
    let is_alone = taken == Needs::default();
    // Alone it gets what there is of the promise; what is not free now it can't get.
    let enough = if is_alone { needs.memory <= host.memory_available } else { needs.memory <= free };
    if !enough {
        let (needs, free) = (Size(needs.memory), Size(if is_alone { host.memory_available } else { free }));
        return Some(format!("for memory: it needs {needs}, and {free} are left"));
    }
    if !is_alone && needs.cpus > host.cpus.saturating_sub(taken.cpus) {
        let left = host.cpus.saturating_sub(taken.cpus);
        return Some(format!("for cores: it needs {}, and {left} of {} are left", needs.cpus, host.cpus));
    }
    None
}

impl Needs {
    #[must_use]
    fn with(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            cpus: self.cpus.saturating_add(other.cpus),
            disk: self.disk.saturating_add(other.disk),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;
    const HOST: Host = Host { memory: 8 * GIB, memory_available: 6 * GIB, cpus: 4, disk_free: 20 * GIB };

    fn entry(memory: u64, cpus: u32, disk: u64, group: &str) -> Entry {
        Entry { needs: Needs { memory: memory * GIB, cpus, disk: disk * GIB }, group: group.to_owned() }
    }

    fn shown(waiting: &[Entry], running: &[Entry]) -> String {
        let line = |verdict: Verdict| match verdict {
            Verdict::Begin => "begins".to_owned(),
            Verdict::Wait(why) => format!("waits {why}"),
            Verdict::Never(why) => format!("never: {why}"),
        };
        admit(waiting, running, &HOST).into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn builds_begin_while_there_is_room() {
        let waiting = [entry(2, 1, 2, "a"), entry(2, 1, 2, "b"), entry(2, 1, 2, "c"), entry(1, 1, 1, "d")];
        insta::assert_snapshot!(shown(&waiting, &[]), @"
        begins
        begins
        begins
        waits for memory: it needs 1GiB, and 0B are left
        ");
        let waiting = [entry(1, 3, 1, "a"), entry(1, 2, 1, "b"), entry(1, 1, 1, "c")];
        insta::assert_snapshot!(shown(&waiting, &[]), @"
        begins
        waits for cores: it needs 2, and 1 of 4 are left
        waits for its turn
        ");
    }

    #[test]
    fn who_waits_for_disk_or_layers_is_overtaken() {
        let waiting = [entry(1, 1, 30, "a"), entry(1, 1, 1, "b"), entry(1, 1, 1, "b"), entry(1, 1, 1, "c")];
        insta::assert_snapshot!(shown(&waiting, &[]), @"
        waits for disk: it needs 30GiB, and 19GiB are left
        begins
        waits for a build whose layers it shares
        begins
        ");
        insta::assert_snapshot!(shown(&[entry(1, 1, 1, "b")], &[entry(1, 1, 1, "b")]), @"waits for a build whose layers it shares");
    }

    #[test]
    fn a_build_of_the_whole_host_begins_alone() {
        insta::assert_snapshot!(shown(&[entry(6, 8, 1, "a")], &[]), @"begins");
        insta::assert_snapshot!(shown(&[entry(6, 8, 1, "a")], &[entry(1, 1, 1, "b")]), @"waits for cores: it needs 8, and 3 of 4 are left");
        insta::assert_snapshot!(shown(&[entry(9, 1, 1, "a")], &[]), @"never: it needs 9GiB of memory with its machine's own, and this host has 8GiB");
    }

    #[test]
    fn who_waits_for_memory_of_other_programs_is_overtaken() {
        let waiting = [entry(7, 1, 1, "a"), entry(2, 1, 1, "b"), entry(1, 1, 1, "c")];
        insta::assert_snapshot!(shown(&waiting, &[]), @"
        waits for memory: it needs 7GiB, and 6GiB are left
        begins
        begins
        ");
        let waiting = [entry(2, 1, 1, "b"), entry(7, 1, 1, "a"), entry(1, 1, 1, "c")];
        insta::assert_snapshot!(shown(&waiting, &[]), @"
        begins
        waits for memory: it needs 7GiB, and 4GiB are left
        begins
        ");
        let waiting = [entry(7, 1, 1, "a"), entry(2, 1, 1, "b"), entry(1, 1, 1, "c")];
        insta::assert_snapshot!(shown(&waiting, &[entry(2, 1, 1, "d")]), @"
        waits for memory: it needs 7GiB, and 5632MiB are left
        waits for its turn
        waits for its turn
        ");
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let group = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
        prop::collection::vec((0..9_u64, 0..5_u32, 0..8_u64, group).prop_map(|(m, c, d, g)| entry(m, c, d, g)), 0..8)
    }

    proptest! {
        #[test]
        fn what_begins_fits_and_never_shares_a_group(waiting in entries()) {
            let verdicts = admit(&waiting, &[], &HOST);
            let begun: Vec<&Entry> = waiting.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::Begin).map(|(e, _)| e).collect();
            let sum = |of: fn(&Needs) -> u64| begun.iter().map(|entry| of(&entry.needs)).sum::<u64>();
            prop_assert!(sum(|needs| needs.memory) <= HOST.memory_available);
            prop_assert!(sum(|needs| needs.disk) <= HOST.disk_free);
            prop_assert!(begun.len() < 2 || sum(|needs| u64::from(needs.cpus)) <= u64::from(HOST.cpus));
            let mut groups: Vec<&str> = begun.iter().map(|entry| entry.group.as_str()).collect();
            groups.sort_unstable();
            groups.dedup();
            prop_assert_eq!(groups.len(), begun.len());
            // With nothing running, whatever fits by itself lets something begin, whatever waits before it.
            let fits = |(at, entry): (usize, &Entry)| {
                let is_first = waiting[..at].iter().all(|before| before.group != entry.group);
                let has_disk = short_of_disk(&entry.needs, Needs::default(), &HOST).is_none();
                is_first && has_disk && entry.needs.memory <= HOST.memory_available
            };
            prop_assert!(!waiting.iter().enumerate().any(fits) || !begun.is_empty());
        }
    }
}
