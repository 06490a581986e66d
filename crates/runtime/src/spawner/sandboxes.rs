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
use std::path::PathBuf;

/// One sandbox as the spawner knows it.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub slot: u32,
    /// Name of its control group.
    pub group: String,
    pub template: TemplateDigest,
    pub pid: i32,
    /// Of its init; none when init was dead already when this spawner started.
    pub pidfd: Option<OwnedFd>,
}

impl Sandbox {
    pub(super) fn new(
        slot: u32,
        group: String,
        template: TemplateDigest,
        pid: i32,
        pidfd: Option<OwnedFd>,
    ) -> Self {
        Self {
            slot,
            group,
            template,
            pid,
            pidfd,
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
    /// Finds the sandboxes that an earlier spawner of this instance has made.
    pub(super) fn find(layout: &Layout, cgroups: &dyn Cgroups) -> Self {
        let mut found = Self::default();
        for group in cgroups.list().unwrap_or_default() {
            let Some((key, slot)) = parse_group_name(&group) else {
                continue;
            };
            let (template, pid) = read_note(layout, &key).unwrap_or((TemplateDigest([0; 32]), 0));
            let pidfd = open_member(pid, &group, cgroups);
            found.slots.insert(slot);
            found
                .live
                .insert(key, Sandbox::new(slot, group, template, pid, pidfd));
        }
        found
    }

    pub(super) fn get(&self, key: &SandboxKey) -> Option<&Sandbox> {
        self.live.get(key)
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

    pub(super) fn insert(&mut self, key: SandboxKey, sandbox: Sandbox, layout: &Layout) {
        write_note(layout, &key, &sandbox);
        self.live.insert(key, sandbox);
    }

    /// Cleans up after a create that failed half way.
    pub(super) fn abandon(&mut self, group: String, slot: u32, cgroups: &dyn Cgroups) {
        let _ = cgroups.kill(&group);
        self.dying.push(Dying::new(None, group, slot, None));
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
        let Some(sandbox) = self.live.remove(key) else {
            // Perhaps it is going already; then both askers hear of its end.
            let twin = self.dying.iter().position(|d| d.key.as_ref() == Some(key));
            match twin {
                Some(index) => self.dying[index].askers.push(asker),
                None => self.dying.push(Dying::gone(key.clone(), asker)),
            }
            return;
        };
        if let Some(pidfd) = &sandbox.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
        let _ = cgroups.kill(&sandbox.group);
        let mut dying = Dying::new(
            Some(key.clone()),
            sandbox.group,
            sandbox.slot,
            sandbox.pidfd,
        );
        dying.askers.push(asker);
        self.dying.push(dying);
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

/// What the next spawner must know of a sandbox and the control groups do not tell.
pub(super) fn note_path(layout: &Layout, key: &SandboxKey) -> PathBuf {
    layout.root().join("notes").join(key.as_str())
}

fn write_note(layout: &Layout, key: &SandboxKey, sandbox: &Sandbox) {
    let text = format!("{} {}", sandbox.template.to_hex(), sandbox.pid);
    if let Err(error) = fs::write(note_path(layout, key), text) {
        // The sandbox works; only a new spawner could not fork into it.
        tracing::warn!(%key, %error, "writing the note of a sandbox failed");
    }
}

fn read_note(layout: &Layout, key: &SandboxKey) -> Option<(TemplateDigest, i32)> {
    let text = fs::read_to_string(note_path(layout, key)).ok()?;
    let (template, pid) = text.split_once(' ')?;
    Some((TemplateDigest::from_hex(template)?, pid.parse().ok()?))
}

/// A pidfd of the noted process, if it is still a member of the group: the number alone may
/// have gone to another process since. Membership is read after the pidfd is open, so that what
/// was checked is what is held.
fn open_member(pid: i32, group: &str, cgroups: &dyn Cgroups) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    cgroups.members(group).ok()?.contains(&pid).then_some(pidfd)
}
