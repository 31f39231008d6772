//! Damaged qcow2 files: sealed or refused, never a panic, and never more memory than the file's size explains.
#![no_main]

use std::io::Write;

use goldsmith::disk::{probe, qcow2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut disk) = tempfile::NamedTempFile::new() else { return };
    if disk.write_all(bytes).is_err() {
        return;
    }
    let _format = probe::probe(disk.path());
    let Ok(out) = tempfile::tempfile() else { return };
    let out = fs_err::File::from_parts(out, "out");
    let _sealed = qcow2::seal(disk.path(), out, &|_| {});
});
