//! Every writer against foreign readers: `qemu-img`, libzstd, GNU tar and gunzip.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::host::file;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A sealed disk of so many sectors, made by `qemu-img` as the disks of unusual parents are, and the same as raw bytes.
/// A write is a place, a length and a byte, all of noise instead where that is 0.
fn disk(folder: &Path, sectors: u64, writes: &[(u64, u64, u8)]) -> PathBuf {
    let raw = folder.join("raw");
    let file = File::create(&raw).unwrap().into_file();
    file.set_len(sectors * 512).unwrap();
    for &(at, length, byte) in writes {
        let at = at % (sectors * 512);
        let mut bytes = vec![byte; small(length.min(sectors * 512 - at)).unwrap()];
        if byte == 0 {
            bytes
                .chunks_mut(16)
                .for_each(|chunk| chunk.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..chunk.len()]));
        }
        file.write_all_at(&bytes, at).unwrap();
    }
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    run("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", &at("raw"), &at("sealed")]);
    folder.join("sealed")
}

fn hardware() -> Hardware {
    Hardware { name: "a<b".to_owned(), cpus: 2, memory: 1 << 30, is_uefi: true }
}

/// Exports into `folder`, each file under its format's ending.
fn export(folder: &Path, sealed: &Path, formats: &[Format]) -> Outcome {
    let (hardware, sha256) = (hardware(), file::sha256(sealed).unwrap());
    let disk = Disk { path: sealed, sha256: &sha256, hardware: &hardware };
    let jobs = formats.iter().map(|&format| {
        let file = File::create(folder.join(format!("x.{}", format.ending()))).unwrap();
        Job { format, file }
    });
    write(disk, jobs.collect(), &|_, _| true)
}

/// Has a foreign program make raw bytes of an exported file.
fn reread(folder: &Path, format: Format) -> PathBuf {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (file, raw) = (at(&format!("x.{}", format.ending())), at(&format!("{format}.reread")));
    let convert = |qemu: &str, file: &str| run("qemu-img", &["convert", "-f", qemu, "-O", "raw", file, &raw]);
    match format {
        Format::Raw => drop(fs_err::copy(file, &raw).unwrap()),
        Format::RawZst => {
            let (from, to) = (File::open(file).unwrap(), File::create(&raw).unwrap());
            ::zstd::stream::copy_decode(from, to).unwrap();
        }
        Format::Qcow2 | Format::Qcow2Zstd => {
            run("qemu-img", &["check", "-q", "-f", "qcow2", &file]);
            convert("qcow2", &file);
        }
        Format::Vmdk => {
            run("qemu-img", &["check", "-q", "-f", "vmdk", &file]);
            convert("vmdk", &file);
        }
        Format::Vhd | Format::VhdFixed => convert("vpc", &file),
        Format::Vhdx => {
            run("qemu-img", &["check", "-q", "-f", "vhdx", &file]);
            convert("vhdx", &file);
        }
        Format::Ova => {
            run("tar", &["-x", "-f", &file, "-C", &at("")]);
            // In the manifest `sha256sum` finds what it wrote itself, but for the names' places.
            let sums = fs_err::read_to_string(at("a<b.mf")).unwrap();
            for line in sums.lines() {
                let (name, sum) = line.strip_prefix("SHA256(").unwrap().split_once(")= ").unwrap();
                assert_eq!(file::sha256(&folder.join(name)).unwrap(), sum);
            }
            assert_eq!(sums.lines().count(), 2);
            convert("vmdk", &at("a<b-disk1.vmdk"));
        }
        Format::Gcp => {
            let sparse = "dd bs=64k iflag=fullblock conv=sparse status=none";
            run("sh", &["-c", &format!("gunzip -t < '{file}' && tar -xOzf '{file}' disk.raw | {sparse} of='{raw}'")]);
        }
    }
    PathBuf::from(raw)
}

/// That a foreign reader finds the content that the digest is of.
fn assert_same(folder: &Path, format: Format, size: u64, content: &str) {
    let raw = reread(folder, format);
    let length = fs_err::metadata(&raw).unwrap().len();
    let unit = match format {
        Format::Vhd | Format::VhdFixed => 1 << 20,
        Format::Gcp => 1 << 30,
        _ => 512,
    };
    assert_eq!(length, size.next_multiple_of(unit), "{format}");
    let whole = file::sha256_of_sparse(&raw).unwrap();
    // What was rounded up is empty.
    File::options().write(true).open(&raw).unwrap().set_len(size).unwrap();
    assert_eq!(file::sha256_of_sparse(&raw).unwrap(), content, "{format}");
    let empty = File::options().write(true).open(&raw).unwrap();
    empty.set_len(length).unwrap();
    assert_eq!(file::sha256_of_sparse(&raw).unwrap(), whole, "{format}: there is something behind the end");
    fs_err::remove_file(raw).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn foreign_readers_find_the_same_in_every_format(
        sectors in prop_oneof![Just(1), Just(127), Just(129), 1..20_000_u64, (1..100_u64).prop_map(|clusters| clusters * 128)],
        writes in prop::collection::vec((0..20_000 * 512_u64, 1..900_000_u64, 0..4_u8), 0..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sealed = disk(folder.path(), sectors, &writes);
        let (content, written) = export(folder.path(), &sealed, &Format::ALL).unwrap();
        prop_assert_eq!(file::sha256_of_sparse(&folder.path().join("raw")).unwrap(), content.as_str());
        for (format, written) in Format::ALL.into_iter().zip(written) {
            let path = folder.path().join(format!("x.{}", format.ending()));
            prop_assert_eq!(file::sha256(&path).unwrap(), written.sha256, "{}", format);
            prop_assert_eq!(fs_err::metadata(path).unwrap().len(), written.bytes, "{}", format);
            assert_same(folder.path(), format, sectors * 512, &content);
        }
    }
}

#[test]
fn the_same_disk_makes_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let sealed = disk(folder.path(), 5000, &[(70_000, 200_000, 0), (1 << 20, 1 << 20, 5)]);
    let together = export(folder.path(), &sealed, &Format::ALL).unwrap();
    for (format, written) in Format::ALL.into_iter().zip(together.1) {
        let alone = export(folder.path(), &sealed, &[format]).unwrap();
        assert_eq!(alone, (together.0.clone(), vec![written]), "{format}");
    }
    let (hardware, sha256) = (hardware(), file::sha256(&sealed).unwrap());
    let disk = Disk { path: &sealed, sha256: &sha256, hardware: &hardware };
    for format in Format::ALL.into_iter().filter(|format| format.is_streamed()) {
        let written = export(folder.path(), &sealed, &[format]).unwrap();
        let mut streamed = Vec::new();
        stream(disk, format, &mut streamed, &|_, _| true).unwrap();
        assert_eq!(file::sha256_of(&streamed), written.1[0].sha256, "{format}");
    }
    let refused = stream(disk, Format::Ova, &mut Vec::new(), &|_, _| true);
    assert!(matches!(refused, Err(Error::NotStreamed { .. })), "{refused:?}");
}

#[test]
fn a_large_empty_disk_is_exported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (sealed, at) =
        (folder.path().join("sealed"), |name: &str| folder.path().join(name).to_str().unwrap().to_owned());
    let size = 2039_u64 << 30;
    run("qemu-img", &["create", "-q", "-f", "qcow2", &at("sealed"), &size.to_string()]);
    let place = format!("write -P 7 {} 100k", 1_u64 << 40);
    run("qemu-io", &["-f", "qcow2", "-c", &place, &at("sealed")]);
    let formats = [Format::Qcow2, Format::Qcow2Zstd, Format::Vmdk, Format::Vhd, Format::Vhdx, Format::Ova];
    export(folder.path(), &sealed, &formats).unwrap();
    run("tar", &["-x", "-f", &at("x.ova"), "-C", &at("")]);
    for (name, qemu) in [
        ("x.zstd.qcow2", "qcow2"),
        ("x.vmdk", "vmdk"),
        ("x.vhd", "vpc"),
        ("x.vhdx", "vhdx"),
        ("a<b-disk1.vmdk", "vmdk"),
    ] {
        // To compare all of it takes QEMU minutes.
        let (data, end) = (format!("read -P 7 {} 100k", 1_u64 << 40), format!("read -P 0 {} 64k", size - (64 << 10)));
        run("qemu-io", &["-r", "-f", qemu, "-c", &data, "-c", &end, &at(name)]);
    }
}

#[test]
fn what_does_not_fit_or_is_given_up_is_an_error_with_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    run("qemu-img", &["create", "-q", "-f", "qcow2", &at("sealed"), "3T"]);
    let sealed = folder.path().join("sealed");
    let (format, error) = export(folder.path(), &sealed, &[Format::Vmdk, Format::Vhd]).unwrap_err();
    assert_eq!(format, Some(Format::Vhd));
    assert!(error.to_string().contains("at most 2190433320960"), "{error}");
    let sealed = disk(folder.path(), 50_000, &[(0, 20 << 20, 0)]);
    let (hardware, file) = (hardware(), File::create(at("x.raw")).unwrap());
    let disk = Disk { path: &sealed, sha256: "", hardware: &hardware };
    let given_up = write(disk, vec![Job { format: Format::Raw, file }], &|done, _| done < 4 << 20);
    assert!(matches!(given_up, Err((_, Error::Cut))), "{given_up:?}");
    // A disk that is damaged in its middle.
    let mut bytes = fs_err::read(&sealed).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    fs_err::write(&sealed, bytes).unwrap();
    let damaged = export(folder.path(), &sealed, &[Format::Raw, Format::Vmdk]);
    assert!(matches!(damaged, Err((None, Error::Sealed(_)))), "{damaged:?}");
}

#[test]
fn formats_by_name() {
    for format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
    }
    assert_eq!(
        "vdi".parse::<Format>(),
        Err("`vdi` is no export format: raw, raw.zst, qcow2, qcow2-zstd, vmdk, vhd, vhd-fixed, vhdx, ova, gcp are"
            .to_owned())
    );
}
