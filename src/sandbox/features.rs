//! The walls by name, and what became of each on this kernel.
//! Owns: names, order, and which walls make which strength.
//! Never: probes anything; a worker does, in a process of its own.

use serde::{Deserialize, Serialize};

/// One thing that the kernel may or may not offer. The order is the order in which a worker builds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// User and group ids of its own: capabilities in it mean nothing outside.
    UserNamespace,
    /// Sees, and can signal, its own processes only; ends as a whole with its first process.
    PidNamespace,
    /// The memory of all processes together is bounded.
    MemoryLimit,
    /// System V and POSIX queues, semaphores and shared memory of its own.
    IpcNamespace,
    /// An empty network with a loopback of its own. Not built where the network is granted.
    NetNamespace,
    /// A host name of its own.
    HostNameNamespace,
    /// A root of its own: workspace, private temp directory, chosen system paths, nothing else.
    PrivateRoot,
    /// A /proc that shows its own processes and nothing of the kernel. Without it there is no /proc.
    PrivateProc,
    /// The number of processes is bounded.
    ProcessLimit,
    /// Every capability is gone, for good.
    CapabilitiesDropped,
    /// No exec gives rights.
    NoNewPrivileges,
    /// The second wall for files; without the private root the only one.
    Landlock,
    /// Signals and abstract sockets end at the worker's edge, and commands cannot touch the worker (Landlock 6).
    LandlockScope,
    /// The system-call filter.
    Seccomp,
}

impl Feature {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::UserNamespace,
        Self::PidNamespace,
        Self::MemoryLimit,
        Self::IpcNamespace,
        Self::NetNamespace,
        Self::HostNameNamespace,
        Self::PrivateRoot,
        Self::PrivateProc,
        Self::ProcessLimit,
        Self::CapabilitiesDropped,
        Self::NoNewPrivileges,
        Self::Landlock,
        Self::LandlockScope,
        Self::Seccomp,
    ];

    /// Whether `--sandbox required` insists on it. A missing /proc costs comfort, not safety; the scope is a second
    /// wall behind the namespaces.
    pub fn is_wall(self) -> bool {
        !matches!(self, Self::PrivateProc | Self::LandlockScope)
    }
}

/// What became of one feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureReport {
    /// Which.
    pub name: Feature,
    /// It holds.
    pub active: bool,
    /// How it holds, or why it does not.
    pub reason: String,
}

/// How strong the walls are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Every wall stands.
    Full,
    /// Walls are missing, but files are shut off by a private root or by Landlock, and the filter stands. Named weaker:
    /// docs/security-model.md says what each missing wall leaves open.
    Reduced,
    /// Not even that, or `--sandbox off`.
    None,
}

/// The strength of a set of features.
pub fn strength(features: &[FeatureReport]) -> Strength {
    let has = |name: Feature| features.iter().any(|feature| feature.name == name && feature.active);
    if Feature::ALL.iter().all(|feature| !feature.is_wall() || has(*feature)) {
        return Strength::Full;
    }
    let floor = [Feature::CapabilitiesDropped, Feature::NoNewPrivileges, Feature::Seccomp];
    if floor.iter().all(|feature| has(*feature)) && (has(Feature::PrivateRoot) || has(Feature::Landlock)) {
        return Strength::Reduced;
    }
    Strength::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(missing: &[Feature]) -> Vec<FeatureReport> {
        let report =
            |name: &Feature| FeatureReport { name: *name, active: !missing.contains(name), reason: String::new() };
        Feature::ALL.iter().map(report).collect()
    }

    #[test]
    fn one_missing_wall_is_not_full_and_a_missing_comfort_is() {
        assert_eq!(strength(&without(&[])), Strength::Full);
        for feature in Feature::ALL {
            let full = strength(&without(&[*feature])) == Strength::Full;
            assert_eq!(full, !feature.is_wall(), "{feature:?}");
        }
    }

    #[test]
    fn below_the_floor_there_is_no_strength() {
        assert_eq!(strength(&without(&[Feature::PrivateRoot])), Strength::Reduced);
        assert_eq!(strength(&without(&[Feature::Landlock])), Strength::Reduced);
        assert_eq!(strength(&without(&[Feature::PrivateRoot, Feature::Landlock])), Strength::None);
        assert_eq!(strength(&without(&[Feature::Seccomp])), Strength::None);
        assert_eq!(strength(&without(&[Feature::NoNewPrivileges])), Strength::None);
        assert_eq!(strength(&[]), Strength::None);
    }
}
