//! `ImportSnapshot`: an object in S3 becomes a snapshot, in a task of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use fs_err::File;
use jiff::Timestamp;

use super::super::answer::{Outcome, Refusal, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Field, Kind, TEXT, may, must};
use super::super::snapshot::{Disk, Snapshot, SnapshotState};
use super::super::world::{State, Tags, World, new_id};
use super::tags::{SPECIFICATIONS, need, only_for, specified};
use super::{Action, Context, write_tags};

/// How many polls find a task active.
const POLLS: u32 = 3;
const ID: Kind = Kind::Id("import-snap");

const IMPORT: &[Field] = &[
    may("Description", Kind::Text(0, 255)),
    may("ClientToken", Kind::Text(0, 128)),
    may("RoleName", Kind::Text(1, 64)),
    may("Encrypted", Kind::Bool),
    may("KmsKeyId", TEXT),
    may("DiskContainer.Description", Kind::Text(0, 255)),
    must("DiskContainer.Format", Kind::OneOf(&["VMDK", "RAW", "VHD"])),
    must("DiskContainer.UserBucket.S3Bucket", Kind::Text(3, 63)),
    must("DiskContainer.UserBucket.S3Key", Kind::Text(1, 1024)),
    may("DiskContainer.Url", Kind::Lacking),
    may("ClientData.Comment", TEXT),
    may("ClientData.UploadSize", Kind::Number),
    may("ClientData.UploadStart", Kind::Time),
    may("ClientData.UploadEnd", Kind::Time),
];

pub(super) const ACTIONS: &[Action] = &[
    Action { name: "ImportSnapshot", fields: &[IMPORT, SPECIFICATIONS], run: import },
    Action {
        name: "DescribeImportSnapshotTasks",
        fields: &[&[
            may("ImportTaskId.#", ID),
            may("MaxResults", Kind::Int(1, 1000)),
            may("NextToken", TEXT),
            may("Filters.#.Name", TEXT),
            may("Filters.#.Value.#", TEXT),
        ]],
        run: describe,
    },
    Action { name: "CancelImportTask", fields: &[&[must("ImportTaskId", ID), may("CancelReason", TEXT)]], run: cancel },
];

/// Where a task is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// So many polls will still find it active, and more if the disk is not decoded by then.
    Active(u32),
    Completed,
    /// It has failed, or was cancelled.
    Deleted(String),
}

/// What came of decoding a disk: nothing yet, its bytes and GiB, or what is wrong with it.
type Decoded = Arc<Mutex<Option<Result<(Arc<Disk>, u32), String>>>>;

/// An import.
#[derive(Debug, Clone)]
pub(crate) struct ImportTask {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) state: TaskState,
    pub(crate) description: Option<String>,
    pub(crate) format: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// The object's size.
    pub(crate) bytes: u64,
    pub(crate) encrypted: bool,
    pub(crate) kms_key: Option<String>,
    pub(crate) tags: Tags,
    /// What it has made.
    pub(crate) snapshot: Option<String>,
    decoded: Decoded,
    ends_badly: Option<&'static str>,
}

fn import(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (query, caller) = (context.query, context.caller);
    only_for(query, &["import-snapshot-task"])?;
    let tags = specified(query, "import-snapshot-task")?;
    let role = query.maybe("RoleName").unwrap_or_else(|| "vmimport".to_owned());
    let role_arn = format!("arn:aws:iam::{}:role/{role}", caller.account);
    let task_arn = caller.arn_of("ec2", "import-snapshot-task/*");
    let mut needs = vec![
        Need::new("ec2:ImportSnapshot", task_arn.clone()).with_tags(&tags),
        Need::new("ec2:ImportSnapshot", caller.snapshot_arn("*")),
        Need::new("iam:PassRole", role_arn).with("iam:PassedToService", "vmie.amazonaws.com"),
    ];
    needs.extend(need(task_arn, "ImportSnapshot", &tags));
    context.may(&needs)?;
    if query.get("KmsKeyId").is_some() && query.flag("Encrypted") != Some(true) {
        return refuse("InvalidParameter", "A KMS key requires Encrypted");
    }
    if let Some(id) = context.earlier(state, "ImportSnapshot")? {
        let task = state.region(&caller.region).tasks.get(&id).cloned();
        let task = task.ok_or_else(|| not_found(&id))?;
        write(xml, &task);
        return Ok(());
    }
    let is_role = state.accounts.get(&caller.account).is_some_and(|account| account.import_roles.contains(&role));
    if !is_role {
        let message = format!(
            "The service role {role} does not exist or does not have sufficient permissions for the service to \
             continue"
        );
        return refuse("InvalidParameter", message);
    }
    let (object, bytes) = object(context, state)?;
    let task = ImportTask {
        id: new_id("import-snap"),
        owner: caller.account.clone(),
        state: TaskState::Active(POLLS),
        description: query.maybe("Description"),
        format: query.text("DiskContainer.Format"),
        bucket: query.text("DiskContainer.UserBucket.S3Bucket"),
        key: query.text("DiskContainer.UserBucket.S3Key"),
        bytes,
        encrypted: query.flag("Encrypted").unwrap_or_default(),
        kms_key: query.maybe("KmsKeyId"),
        tags,
        snapshot: None,
        decoded: Decoded::default(),
        ends_badly: context.ends_badly,
    };
    let (world, decoded, format) = (context.world.clone(), task.decoded.clone(), task.format.clone());
    std::thread::spawn(move || {
        let result = decode(&world, &object, &format);
        *decoded.lock().unwrap() = Some(result);
    });
    write(xml, &task);
    context.remember(state, "ImportSnapshot", &task.id);
    state.region(&caller.region).tasks.insert(task.id.clone(), task);
    Ok(())
}

/// The file of the object that is to be imported. The role reads it, so the caller's policy is not asked.
fn object(context: &Context<'_>, state: &State) -> Outcome<(PathBuf, u64)> {
    let bucket = context.query.text("DiskContainer.UserBucket.S3Bucket");
    let key = context.query.text("DiskContainer.UserBucket.S3Key");
    let Some(known) = state.buckets.get(&bucket).filter(|known| known.account == context.caller.account) else {
        return refuse("InvalidParameter", format!("The given S3 bucket {bucket} can't be read by the service role"));
    };
    if known.region != context.caller.region {
        return refuse("InvalidParameter", "The given S3 object is not local to the region.");
    }
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let path = context.world.s3().join(&bucket).join(&key);
    let length = fs_err::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    match length.filter(|_| key.split('/').all(is_plain)) {
        Some(length) => Ok((path, length)),
        None => refuse("InvalidParameter", format!("The S3 object {key} does not exist in {bucket}")),
    }
}

/// Decodes a disk, by QEMU's reader and none of goldsmith's.
fn decode(world: &World, object: &Path, format: &str) -> Result<(Arc<Disk>, u32), String> {
    let bad = |what: &str| format!("ClientError: Disk validation failed [{what}]");
    let format = match format {
        "VMDK" if !is_stream_optimized(object) => return Err(bad("Unsupported VMDK File Format")),
        "VMDK" => "vmdk",
        "VHD" => "vpc",
        _ => {
            let length = fs_err::metadata(object).map_err(|error| bad(&error.to_string()))?.len();
            if length == 0 || length % 512 != 0 {
                return Err(bad("The size of the disk is no multiple of 512 bytes"));
            }
            "raw"
        }
    };
    let folder = tempfile::tempdir_in(world.folder.path()).map_err(|error| bad(&error.to_string()))?;
    let raw = folder.path().join("raw");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", format, "-O", "raw"]).arg(object).arg(&raw);
    let output = convert.output().map_err(|error| bad(&error.to_string()))?;
    if !output.status.success() {
        return Err(bad(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let (disk, gib) = Disk::import(&world.disks(), &raw).map_err(|error| bad(&error.to_string()))?;
    Ok((Arc::new(disk), gib))
}

/// Whether a file is a VMDK of the one kind that AWS takes. VMware's `SparseExtentHeader`: the magic number, flags at 8
/// of which bit 16 says that grains are compressed and bit 17 that there are markers, and at 77 the algorithm, 1 for
/// deflate.
fn is_stream_optimized(path: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let mut header = [0; 512];
    let read = File::open(path).and_then(|file| file.into_file().read_exact_at(&mut header, 0));
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let flags = 1 << 16 | 1 << 17;
    read.is_ok() && &header[..4] == b"KDMV" && number(8) & flags == flags && header[77..79] == [1, 0]
}

fn not_found(id: &str) -> Refusal {
    Refusal::new("InvalidConversionTaskId", format!("The import task {id} does not exist"))
}

fn describe(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    context.may(&[Need::new("ec2:DescribeImportSnapshotTasks", "*")])?;
    let caller = context.caller;
    let ids = context.query.texts("ImportTaskId");
    let tasks = &mut state.region(&caller.region).tasks;
    if let Some(id) = ids.iter().find(|id| tasks.get(*id).is_none_or(|task| task.owner != caller.account)) {
        return Err(not_found(id));
    }
    let mut found = Vec::new();
    let mut made = Vec::new();
    for task in tasks.values_mut() {
        let is_meant = task.owner == caller.account && (ids.is_empty() || ids.contains(&task.id));
        if is_meant && context.passes(|name| filtered(task, name))? {
            found.push(task.clone());
            made.extend(task.polled());
        }
    }
    let region = state.region(&caller.region);
    region.snapshots.extend(made.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)));
    let (shown, next) = context.page(found)?;
    xml.list("importSnapshotTaskSet", &shown, write).maybe("nextToken", next);
    Ok(())
}

fn filtered(task: &ImportTask, name: &str) -> Option<Vec<String>> {
    match name {
        "tag-key" => Some(task.tags.keys().cloned().collect()),
        name => Some(task.tags.get(name.strip_prefix("tag:")?).cloned().into_iter().collect()),
    }
}

impl ImportTask {
    /// A poll has found it. When it comes to its good end, there is a snapshot.
    fn polled(&mut self) -> Option<Snapshot> {
        match self.state {
            TaskState::Active(polls) if polls > 1 => {
                self.state = TaskState::Active(polls - 1);
                None
            }
            TaskState::Active(_) => {
                let decoded = self.decoded.lock().unwrap().clone()?;
                let decoded = self.ends_badly.map_or(decoded, |why| Err(why.to_owned()));
                match decoded {
                    Ok((disk, gib)) => Some(self.complete(disk, gib)),
                    Err(why) => {
                        self.state = TaskState::Deleted(why);
                        None
                    }
                }
            }
            _ => None,
        }
    }

    fn complete(&mut self, disk: Arc<Disk>, gib: u32) -> Snapshot {
        let id = new_id("snap");
        self.state = TaskState::Completed;
        self.snapshot = Some(id.clone());
        Snapshot {
            id,
            owner: self.owner.clone(),
            gib,
            state: SnapshotState::Completed,
            description: format!("Created by AWS-VMImport service for {}", self.id),
            // The task's tags are its own.
            tags: Tags::new(),
            encrypted: self.encrypted,
            kms_key: self.kms_key.clone(),
            parent: None,
            started: Timestamp::now(),
            users: Default::default(),
            is_public: false,
            disk,
        }
    }

    /// Its state in EC2's word.
    pub(crate) fn status(&self) -> &'static str {
        match self.state {
            TaskState::Active(_) => "active",
            TaskState::Completed => "completed",
            TaskState::Deleted(_) => "deleted",
        }
    }
}

fn write(xml: &mut Xml, task: &ImportTask) {
    xml.text("importTaskId", &task.id).maybe("description", task.description.as_ref());
    xml.within("snapshotTaskDetail", |xml| {
        xml.maybe("description", task.description.as_ref()).text("format", &task.format);
        #[allow(clippy::cast_precision_loss)]
        xml.text("diskImageSize", format!("{:?}", task.bytes as f64)).text("status", task.status());
        match &task.state {
            TaskState::Active(polls) => {
                let progress = 100 - polls.min(&POLLS) * 30;
                xml.text("progress", progress);
                let message = if *polls > 2 { "pending" } else { "downloading/converting" };
                xml.text("statusMessage", message);
            }
            TaskState::Completed => {}
            TaskState::Deleted(why) => {
                xml.text("statusMessage", why);
            }
        }
        xml.maybe("snapshotId", task.snapshot.as_ref()).text("encrypted", task.encrypted);
        xml.maybe("kmsKeyId", task.kms_key.as_ref());
        xml.within("userBucket", |xml| {
            xml.text("s3Bucket", &task.bucket).text("s3Key", &task.key);
        });
    });
    write_tags(xml, &task.tags);
}

fn cancel(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let caller = context.caller;
    let id = context.query.text("ImportTaskId");
    let tasks = &mut state.region(&caller.region).tasks;
    let task = tasks.get_mut(&id).filter(|task| task.owner == caller.account).ok_or_else(|| not_found(&id))?;
    let arn = caller.arn_of("ec2", &format!("import-snapshot-task/{id}"));
    context.may(&[Need::new("ec2:CancelImportTask", arn).of_tagged(&task.tags)])?;
    let before = task.status();
    if before != "active" {
        return refuse("IncorrectState", format!("The task {id} is {before}"));
    }
    let why = context.query.maybe("CancelReason").unwrap_or_else(|| "Cancelled by the user".to_owned());
    task.state = TaskState::Deleted(why);
    xml.text("importTaskId", &id).text("previousState", before).text("state", "deleting");
    Ok(())
}
