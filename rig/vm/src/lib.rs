//! Another kernel on one machine: Debian's, in a small qemu guest, for what the
//! machine's own kernel may lack (project quotas of xfs and ext4, device mapper).
//!
//! A guest is a kernel, an initramfs made for the one program that it runs, and
//! empty disks. It boots in a few seconds, prints what the program prints, and
//! answers with its exit code. The processor is emulated (TCG), so nothing is
//! asked of the machine's virtualisation. Nothing is left behind, however the
//! program that uses this ends: disks, initramfs and logs are files without a name,
//! and qemu is ended by the kernel with the thread that started it. Only after a
//! failure the kernel's messages are put into a file that stays, and it is named.
//!
//! A guest ends as by a power cut: with [`Vm::disk_file`] a second one finds what
//! the first has synced, and no more.
//!
//! # By hand
//! ```text
//! cargo vm run --disk 4GiB -- sh -c 'mkfs.xfs -q /dev/vda && mount -o prjquota /dev/vda /mnt && df /mnt'
//! cargo vm run --copy target/debug/berth-agent:/usr/bin/berth-agent -- berth-agent --version
//! cargo vm run -- ./target/debug/some-program its arguments
//! ```
//! A program with a slash in its name is the host's and is brought along with its
//! libraries; one without is the guest's: busybox, and the host's tools for
//! filesystems ([`tools`]). Disks are /dev/vda, /dev/vdb and so on.
//!
//! # Tests in the guest
//! `cargo vm test` builds the provisioner's integration tests and runs them in a
//! guest per filesystem. A test finds there:
//! - `BERTH_TEST_FILESYSTEM`: `xfs`, `ext4` or `btrfs`, the filesystem it is to judge;
//! - `TMPDIR`: a directory on a disk of that filesystem, 32 GiB and sparse, mounted
//!   with project quotas (btrfs without);
//! - root, loop devices, and the programs of [`tools`].
//!
//! ext4 lets root pass a project's limit: its quota exempts CAP_SYS_RESOURCE, while
//! xfs makes no difference (and says ENOSPC where ext4 says EDQUOT). A test that
//! writes until it is stopped drops that capability first, as containers have.
//!
//! So one target holds tests for every filesystem: they format and mount their
//! pools by that variable, and where it is not set by what the machine can do.
//! `cargo vm test --filesystem xfs --test quota -- --nocapture limits_` runs some.
//!
//! # As a library
//! ```no_run
//! use berth_qemu::Vm;
//! let mut vm = Vm::new("sh", ["-c", "mkfs.ext4 -q /dev/vda"]);
//! vm.disk(4 << 30);
//! let outcome = vm.run(&mut std::io::stdout())?;
//! assert!(outcome.success(), "{}", outcome.trace());
//! # Ok::<(), berth_qemu::Error>(())
//! ```

mod error;
mod guest;
mod initramfs;
mod kernel;
mod libraries;
mod modules;
pub mod preflight;
mod qemu;
pub mod suite;
pub mod tools;
mod vm;

pub use error::{Error, Result};
pub use vm::{Outcome, Vm};
