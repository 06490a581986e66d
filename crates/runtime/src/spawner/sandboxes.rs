//! Which sandboxes there are: in memory, and found again in the control groups by the next
//! spawner.
//!
//! Who runs it: the spawner, as root.

use super::clients::{ClientId, Clients};
use super::remove::Dying;
use crate::cgroup::Cgroups;
use crate::command::{LIST_KEYS_MAX, SANDBOXES_MAX, SandboxKey, TemplateDigest};
use crate::layout::Layout;
use crate::plan::parse_group_name;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};

/// One sandbox as the spawner knows it.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub slot: u32,
    /// Name of its control group.
    pub group: String,
    pub template: TemplateDigest,
    /// Of its init; none when init was dead already when this spawner started.
    pub pidfd: Option<OwnedFd>,
    /// Whether its first process has become init: before that nothing may join it.
    pub ready: bool,
}

impl Sandbox {
    /// One whose child is on its way.
    pub(super) fn starting(
        slot: u32,
        group: String,
        template: TemplateDigest,
        pidfd: OwnedFd,
    ) -> Self {
        Self {
            slot,
            group,
            template,
            pidfd: Some(pidfd),
            ready: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    live: BTreeMap<SandboxKey, Sandbox>,
    pub(super) dying: Vec<Dying>,
    slots: BTreeSet<u32>,
    /// Where the search for a free slot goes on: the one just freed is used last.
    next_slot: u32,
}

impl Sandboxes {
    /// Finds the sandboxes that an earlier spawner of this instance has made. A group whose name
    /// says nothing (of a version that named them otherwise) cannot be used by anybody: it goes.
    pub(super) fn find(cgroups: &dyn Cgroups) -> Self {
        let mut found = Self::default();
        for group in cgroups.list().unwrap_or_default() {
            let Some((key, slot, template)) = parse_group_name(&group) else {
                tracing::warn!(group, "removing a group that this version has not made");
                let _ = cgroups.kill(&group);
                found.dying.push(Dying::new(None, group, None, None));
                continue;
            };
            let pidfd = find_init(&group, cgroups);
            found.slots.insert(slot);
            let sandbox = Sandbox {
                slot,
                group,
                template,
                ready: pidfd.is_some(),
                pidfd,
            };
            found.live.insert(key, sandbox);
        }
        found
    }

    pub(super) fn get(&self, key: &SandboxKey) -> Option<&Sandbox> {
        self.live.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &SandboxKey) -> Option<&mut Sandbox> {
        self.live.get_mut(key)
    }

    /// The sandbox of that key, once it has an init.
    pub(super) fn get_ready(&self, key: &SandboxKey) -> Option<&Sandbox> {
        self.get(key).filter(|sandbox| sandbox.ready)
    }

    /// A uid range that no sandbox has, not even one that is being removed.
    pub(super) fn free_slot(&mut self) -> Option<u32> {
        let slot = (self.next_slot..SANDBOXES_MAX)
            .chain(0..self.next_slot)
            .find(|slot| !self.slots.contains(slot))?;
        self.slots.insert(slot);
        self.next_slot = (slot + 1) % SANDBOXES_MAX;
        Some(slot)
    }

    pub(super) fn insert(&mut self, key: SandboxKey, sandbox: Sandbox) {
        self.live.insert(key, sandbox);
    }

    /// Removes a sandbox whose child did not become init; nobody waits for that.
    pub(super) fn give_up(&mut self, key: &SandboxKey, slot: u32, cgroups: &dyn Cgroups) {
        if self.get(key).is_some_and(|sandbox| sandbox.slot == slot) {
            self.begin_removal(key, cgroups);
        }
    }

    /// Cleans up after a create that failed half way.
    pub(super) fn abandon(&mut self, group: String, slot: u32, cgroups: &dyn Cgroups) {
        let _ = cgroups.kill(&group);
        self.dying.push(Dying::new(None, group, Some(slot), None));
    }

    pub(super) fn keys_after(&self, after: Option<&SandboxKey>) -> Vec<SandboxKey> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.live
            .range::<SandboxKey, _>((from, Bound::Unbounded))
            .map(|(key, _)| key.clone())
            .take(LIST_KEYS_MAX)
            .collect()
    }

    /// Begins the removal of a sandbox; the answer is given by [`Sandboxes::reap`].
    pub(super) fn kill(&mut self, key: &SandboxKey, asker: (ClientId, u64), cgroups: &dyn Cgroups) {
        if let Some(dying) = self.begin_removal(key, cgroups) {
            dying.askers.push(asker);
            return;
        }
        // Perhaps it is going already; then both askers hear of its end.
        let twin = self.dying.iter().position(|d| d.key.as_ref() == Some(key));
        match twin {
            Some(index) => self.dying[index].askers.push(asker),
            None => self.dying.push(Dying::gone(key.clone(), asker)),
        }
    }

    /// Kills a live sandbox. With init goes everything in its pid namespace.
    fn begin_removal(&mut self, key: &SandboxKey, cgroups: &dyn Cgroups) -> Option<&mut Dying> {
        let sandbox = self.live.remove(key)?;
        if let Some(pidfd) = &sandbox.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
        let _ = cgroups.kill(&sandbox.group);
        self.dying.push(Dying::new(
            Some(key.clone()),
            sandbox.group,
            Some(sandbox.slot),
            sandbox.pidfd,
        ));
        self.dying.last_mut()
    }

    /// Goes on with removals: whatever is empty is removed and answered.
    pub(super) fn reap(&mut self, cgroups: &dyn Cgroups, layout: &Layout, clients: &mut Clients) {
        let slots = &mut self.slots;
        self.dying.retain_mut(|dying| {
            let over = dying.advance(cgroups, layout, clients);
            if let (true, Some(slot)) = (over, dying.slot) {
                slots.remove(&slot);
            }
            !over
        });
    }

    pub(super) fn dying_pidfds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dying.iter().filter_map(Dying::waiting_for)
    }

    /// Whether a removal waits for something that has no descriptor.
    pub(super) fn removal_to_retry(&self) -> bool {
        self.dying.iter().any(|dying| dying.waiting_for().is_none())
    }
}

/// A pidfd of the group's init: the member that is number 1 in its own pid namespace. Membership
/// is read again after the pidfd is open, so that what was checked is what is held.
fn find_init(group: &str, cgroups: &dyn Cgroups) -> Option<OwnedFd> {
    let members = cgroups.members(group).ok()?;
    let number = members.into_iter().find(|pid| is_init(*pid))?;
    let pidfd = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
    let still = cgroups.members(group).ok()?.contains(&number) && is_init(number);
    still.then_some(pidfd)
}

/// proc(5): `NSpid` has the process's number in each of its pid namespaces, the innermost last.
fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| {
        let mut numbers = numbers.split_whitespace();
        numbers.next() == Some(pid.to_string().as_str()) && numbers.next_back() == Some("1")
    })
}
