//! What can be measured, each case by a name that holds its sizes: `--only parallel-700`
//! is as good as a size of the default list.

use std::{fmt, str::FromStr};

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// One Parallel set of so many replicas, until all are ready.
    Parallel(usize),
    /// One OrderedReady set of so many replicas, until all are ready.
    Ordered(usize),
    /// A new template for a set whose replicas are ready.
    Rolling {
        /// Replicas.
        pods: usize,
        /// `maxUnavailable`.
        by: usize,
        /// OrderedReady instead of Parallel.
        ordered: bool,
    },
    /// Many Parallel sets at once.
    Sets {
        /// How many sets.
        sets: usize,
        /// Replicas of each.
        pods: usize,
    },
    /// The controller starts where so many sets are, all of them as they should be.
    Cold {
        /// How many sets.
        sets: usize,
        /// Replicas of each.
        pods: usize,
    },
    /// What is written while nothing happens, after the set's replicas are ready.
    Idle {
        /// Replicas.
        pods: usize,
        /// For how long, in seconds.
        seconds: u64,
    },
}

const fn rolling(pods: usize, by: usize) -> Case {
    Case::Rolling {
        pods,
        by,
        ordered: false,
    }
}

impl Case {
    /// What runs by default: within half an hour on two cores.
    pub const DEFAULT: [Case; 9] = [
        Case::Parallel(500),
        Case::Parallel(2000),
        Case::Ordered(100),
        rolling(200, 1),
        rolling(200, 20),
        rolling(500, 50),
        Case::Rolling {
            pods: 200,
            by: 20,
            ordered: true,
        },
        Case::Sets { sets: 200, pods: 3 },
        Case::Idle {
            pods: 200,
            seconds: 60,
        },
    ];

    /// What runs with raised limits only, unless it is asked for: at default limits these
    /// take long and tell nothing that the smaller ones do not.
    pub const DEFAULT_RAISED: [Case; 2] = [
        Case::Parallel(5000),
        Case::Cold {
            sets: 10_000,
            pods: 0,
        },
    ];

    /// All of them, at both limits.
    pub const FULL: [Case; 12] = [
        Case::Parallel(500),
        Case::Parallel(2000),
        Case::Parallel(5000),
        Case::Ordered(100),
        rolling(200, 1),
        rolling(200, 20),
        rolling(500, 1),
        rolling(500, 50),
        Case::Rolling {
            pods: 200,
            by: 20,
            ordered: true,
        },
        Case::Sets { sets: 500, pods: 3 },
        Case::Cold {
            sets: 10_000,
            pods: 0,
        },
        Case::Idle {
            pods: 500,
            seconds: 120,
        },
    ];

    /// Pods that there are in the end.
    pub fn pods(self) -> usize {
        match self {
            Case::Parallel(pods) | Case::Ordered(pods) => pods,
            Case::Rolling { pods, .. } | Case::Idle { pods, .. } => pods,
            Case::Sets { sets, pods } | Case::Cold { sets, pods } => sets * pods,
        }
    }

    /// Sets that there are.
    pub fn sets(self) -> usize {
        match self {
            Case::Sets { sets, .. } | Case::Cold { sets, .. } => sets,
            _ => 1,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Parallel(pods) => write!(f, "parallel-{pods}"),
            Case::Ordered(pods) => write!(f, "ordered-{pods}"),
            Case::Rolling { pods, by, ordered } => {
                let ordered = if *ordered { "-ordered" } else { "" };
                write!(f, "rolling-{pods}-by-{by}{ordered}")
            }
            Case::Sets { sets, pods } => write!(f, "sets-{sets}x{pods}"),
            Case::Cold { sets, pods } => write!(f, "cold-{sets}x{pods}"),
            Case::Idle { pods, seconds } => write!(f, "idle-{pods}-for-{seconds}"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (name, sizes) = text.split_once('-')?;
            let one = |text: &str| text.parse::<usize>().ok();
            let two = |by: &str| {
                let (a, b) = sizes.split_once(by)?;
                Some((one(a)?, one(b)?))
            };
            let case = match name {
                "parallel" => Case::Parallel(one(sizes)?),
                "ordered" => Case::Ordered(one(sizes)?),
                "rolling" => {
                    let (pods, by) = sizes.split_once("-by-")?;
                    let before = by.strip_suffix("-ordered");
                    Case::Rolling {
                        pods: one(pods)?,
                        by: one(before.unwrap_or(by))?,
                        ordered: before.is_some(),
                    }
                }
                "sets" => {
                    let (sets, pods) = two("x")?;
                    Case::Sets { sets, pods }
                }
                "cold" => {
                    let (sets, pods) = two("x")?;
                    Case::Cold { sets, pods }
                }
                "idle" => {
                    let (pods, seconds) = two("-for-")?;
                    let seconds = u64::try_from(seconds).ok()?;
                    Case::Idle { pods, seconds }
                }
                _ => return None,
            };
            (case.sets() > 0 && (case.pods() > 0 || matches!(case, Case::Cold { .. })))
                .then_some(case)
        };
        parse().ok_or_else(|| {
            format!(
                "no case {text:?}; they are parallel-PODS, ordered-PODS, rolling-PODS-by-MAXUNAVAILABLE, the same with -ordered, sets-SETSxPODS, cold-SETSxPODS, idle-PODS-for-SECONDS"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_sizes() {
        let all = Case::FULL.iter().chain(&Case::DEFAULT);
        for case in all.chain(&Case::DEFAULT_RAISED) {
            assert_eq!(case.to_string().parse(), Ok(*case));
        }
        for wrong in [
            "",
            "parallel",
            "parallel-",
            "parallel-0",
            "rolling-5",
            "sets-5",
            "other-5",
            "sets-0x3",
        ] {
            assert!(wrong.parse::<Case>().is_err(), "{wrong}");
        }
    }
}
