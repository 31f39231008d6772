//! All modules. AWS user guide, "Action modules supported by AWSTOE component manager".

use super::{Module, Takes, Work, condition, copy, download, file, folder, hardware, owner, s3, script, system, text};
use crate::component::inputs::{Field, optional, required};
use crate::component::kind::Kind;
use crate::document::component::Platform::{self, Linux, MacOs, Windows};

const EVERYWHERE: &[Platform] = &[Linux, Windows, MacOs];
const UNIX: &[Platform] = &[Linux, MacOs];
const NOT_MAC: &[Platform] = &[Linux, Windows];
const ONLY_WINDOWS: &[Platform] = &[Windows];

/// What a running machine can be given.
const DEVICES: &[&str] = &["disk", "networkCard"];
const REBOOT: &[&str] = &["Allow", "Force", "Skip"];
const REGISTRY_TYPES: &[&str] = &["BINARY", "DWORD", "QWORD", "SZ", "EXPAND_SZ", "MULTI_SZ"];
const MSI_OUTPUTS: &[&str] = &["logFile", "msiExitCode", "stdout"];

/// One file or folder into another place.
const TRANSFER: &[Field] =
    &[required("source", Kind::Path), required("destination", Kind::Path), optional("overwrite", Kind::Flag)];
const MSI: &[Field] = &[
    required("path", Kind::Path),
    optional("reboot", Kind::OneOf(REBOOT)),
    optional("logOptions", Kind::Text),
    optional("logFile", Kind::Path),
    optional("properties", Kind::Settings),
    optional("ignoreAuthenticodeSignatureErrors", Kind::Flag),
    optional("allowUnsignedInstaller", Kind::Flag),
];

macro_rules! module {
    ($name:literal, $summary:literal, $platforms:expr, $takes:expr, $outputs:expr, $run:path) => {
        module!(@ $name, $summary, $platforms, $takes, $outputs, Work::Guest(|call| Box::pin($run(call))))
    };
    (@ $name:literal, $summary:literal, $platforms:expr, $takes:expr, $outputs:expr, $work:expr) => {
        Module { name: $name, summary: $summary, platforms: $platforms, takes: $takes, outputs: $outputs, work: $work }
    };
}

/// All modules, by name.
pub static MODULES: &[Module] = &[
    module!(
        "AppendFile",
        "adds text to the end of files",
        EVERYWHERE,
        Takes::List(&[
            required("path", Kind::Path),
            optional("content", Kind::Text),
            optional("encoding", Kind::Encoding),
        ]),
        &[],
        text::append
    ),
    module!("Assert", "fails unless a condition holds", EVERYWHERE, Takes::Condition, &[], condition::assert),
    module!("CopyFile", "copies files", EVERYWHERE, Takes::List(TRANSFER), &[], copy::copy_files),
    module!("CopyFolder", "copies folders", EVERYWHERE, Takes::List(TRANSFER), &[], copy::copy_folders),
    module!(
        "CreateFile",
        "writes files",
        EVERYWHERE,
        Takes::List(&[
            required("path", Kind::Path),
            optional("content", Kind::Text),
            optional("encoding", Kind::Encoding),
            optional("owner", Kind::Text),
            optional("group", Kind::Text),
            optional("permissions", Kind::Permissions),
            optional("overwrite", Kind::Flag),
        ]),
        &[],
        text::create
    ),
    module!(
        "CreateFolder",
        "makes folders",
        EVERYWHERE,
        Takes::List(&[
            required("path", Kind::Path),
            optional("owner", Kind::Text),
            optional("group", Kind::Text),
            optional("permissions", Kind::Permissions),
            optional("overwrite", Kind::Flag),
        ]),
        &[],
        folder::create
    ),
    module!(
        "CreateSymlink",
        "makes symbolic links",
        UNIX,
        Takes::List(&[required("path", Kind::Path), required("target", Kind::Path), optional("force", Kind::Flag),]),
        &[],
        file::link
    ),
    module!("DeleteFile", "deletes files", EVERYWHERE, Takes::List(&[required("path", Kind::Path)]), &[], file::delete),
    module!(
        "DeleteFolder",
        "deletes folders",
        EVERYWHERE,
        Takes::List(&[required("path", Kind::Path), optional("force", Kind::Flag)]),
        &[],
        folder::delete
    ),
    module!(
        "ExecuteBash",
        "runs commands with bash",
        UNIX,
        Takes::Map(&[required("commands", Kind::Texts)]),
        &["stdout"],
        script::execute_bash
    ),
    module!(
        "ExecuteBinary",
        "runs a program",
        EVERYWHERE,
        Takes::Map(&[required("path", Kind::Path), optional("arguments", Kind::Texts)]),
        &["stdout"],
        script::execute_binary
    ),
    module!(
        @ "ExecuteDocument",
        "runs another document",
        EVERYWHERE,
        Takes::Map(&[
            required("document", Kind::Path),
            optional("document-s3-bucket-owner", Kind::Account),
            optional("phases", Kind::Text),
            optional("parameters", Kind::Parameters),
        ]),
        &[
            "executedStepCount",
            "executionId",
            "failedStepCount",
            "failureMessage",
            "ignoredFailedStepCount",
            "logUrl",
            "status",
        ],
        Work::Document
    ),
    module!(
        @ "ExecutePowerShell",
        "runs commands with Windows PowerShell",
        ONLY_WINDOWS,
        Takes::Map(&[optional("commands", Kind::Texts), optional("file", Kind::Path)]),
        &["stdout"],
        Work::Elsewhere
    ),
    module!(
        "GoldsmithAttachDevice",
        "gives the machine a disk or a network card (not on EC2)",
        &[Linux],
        Takes::Map(&[required("device", Kind::OneOf(DEVICES))]),
        &["id"],
        hardware::attach
    ),
    module!(
        "GoldsmithDetachDevice",
        "takes it away again (not on EC2)",
        &[Linux],
        Takes::Map(&[required("device", Kind::OneOf(DEVICES))]),
        &[],
        hardware::detach
    ),
    module!(
        @ "InstallMSI",
        "installs Windows packages",
        ONLY_WINDOWS,
        Takes::Map(MSI),
        MSI_OUTPUTS,
        Work::Elsewhere
    ),
    module!(
        "ListFiles",
        "lists files of a folder",
        EVERYWHERE,
        Takes::List(&[
            required("path", Kind::Path),
            optional("fileNamePattern", Kind::Text),
            optional("recursive", Kind::Flag),
        ]),
        &["files"],
        folder::list
    ),
    module!("MoveFile", "moves files", EVERYWHERE, Takes::List(TRANSFER), &[], copy::move_files),
    module!("MoveFolder", "moves folders", EVERYWHERE, Takes::List(TRANSFER), &[], copy::move_folders),
    module!(
        "ReadFile",
        "reads files",
        EVERYWHERE,
        Takes::List(&[
            required("path", Kind::Path),
            optional("encoding", Kind::Encoding),
            optional("printFileContent", Kind::Flag),
        ]),
        &["content"],
        text::read
    ),
    module!(
        "Reboot",
        "restarts the machine",
        NOT_MAC,
        Takes::Map(&[optional("delaySeconds", Kind::Number)]),
        &[],
        system::reboot
    ),
    module!(
        "S3Download",
        "downloads objects of S3",
        EVERYWHERE,
        Takes::List(&[
            required("source", Kind::Object),
            required("destination", Kind::Path),
            optional("expectedBucketOwner", Kind::Account),
            optional("overwrite", Kind::Flag),
        ]),
        &[],
        s3::download
    ),
    module!(
        "S3Upload",
        "uploads files to S3",
        EVERYWHERE,
        Takes::List(&[
            required("source", Kind::Path),
            required("destination", Kind::Object),
            optional("recurse", Kind::Flag),
            optional("expectedBucketOwner", Kind::Account),
        ]),
        &[],
        s3::upload
    ),
    module!(
        "SetFileEncoding",
        "changes the encoding of files",
        EVERYWHERE,
        Takes::List(&[required("path", Kind::Path), optional("encoding", Kind::Encoding)]),
        &[],
        text::set_encoding
    ),
    module!(
        "SetFileOwner",
        "sets who owns files",
        UNIX,
        Takes::List(&[required("path", Kind::Path), required("owner", Kind::Text), optional("group", Kind::Text)]),
        &[],
        owner::of_files
    ),
    module!(
        "SetFilePermissions",
        "sets permissions of files",
        UNIX,
        Takes::List(&[required("path", Kind::Path), required("permissions", Kind::Permissions)]),
        &[],
        owner::permissions_of_files
    ),
    module!(
        "SetFolderOwner",
        "sets who owns folders and what is in them",
        UNIX,
        Takes::List(&[
            required("path", Kind::Path),
            required("owner", Kind::Text),
            optional("group", Kind::Text),
            optional("recursive", Kind::Flag),
        ]),
        &[],
        owner::of_folders
    ),
    module!(
        "SetFolderPermissions",
        "sets permissions of folders and what is in them",
        UNIX,
        Takes::List(&[
            required("path", Kind::Path),
            required("permissions", Kind::Permissions),
            optional("recursive", Kind::Flag),
        ]),
        &[],
        owner::permissions_of_folders
    ),
    module!(
        @ "SetRegistry",
        "sets values of the Windows registry",
        ONLY_WINDOWS,
        Takes::List(&[
            required("path", Kind::RegistryPath),
            required("name", Kind::Text),
            required("value", Kind::TextOrTexts),
            required("type", Kind::OneOf(REGISTRY_TYPES)),
        ]),
        &[],
        Work::Elsewhere
    ),
    module!(
        @ "UninstallMSI",
        "removes Windows packages",
        ONLY_WINDOWS,
        Takes::Map(MSI),
        MSI_OUTPUTS,
        Work::Elsewhere
    ),
    module!(
        "UpdateOS",
        "installs the distribution's updates",
        NOT_MAC,
        Takes::Map(&[optional("include", Kind::Texts), optional("exclude", Kind::Texts)]),
        &[],
        system::update_os
    ),
    module!(
        "WebDownload",
        "downloads files",
        EVERYWHERE,
        Takes::List(&[
            required("source", Kind::WebAddress),
            required("destination", Kind::Path),
            optional("overwrite", Kind::Flag),
            optional("checksum", Kind::Text),
            optional("algorithm", Kind::Algorithm),
            optional("ignoreCertificateErrors", Kind::Flag),
        ]),
        &["destination"],
        download::web_download
    ),
];
