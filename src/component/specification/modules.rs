//! Section 3: action modules.

use super::{Noted, Refused, Row, Valid, command, on_windows, step};

pub(super) fn rows() -> Vec<Row> {
    [programs(), documents(), transfers(), files(), folders(), windows(), registry(), system()]
        .into_iter()
        .flatten()
        .collect()
}

fn programs() -> Vec<Row> {
    vec![
        step("3.1", "action: Assert, inputs: { stringEquals: a, value: '{{ Port }}' }", Valid),
        step("3.1", "action: Assert, inputs: { not: { fileExists: /x } }", Valid),
        step(
            "3.1",
            "action: Assert, inputs: { fileExists: /x, then: Skip }",
            Refused("a condition has no field `then`"),
        ),
        step("3.1", "action: Assert", Refused("Action Assert has no inputs")),
        command("3.2", "date", Valid),
        step("3.2", "action: ExecuteBash, inputs: { commands: [set -e, 'cd /x', exit 194] }", Valid),
        step("3.2", "action: ExecuteBash, inputs: { commands: [] }", Refused("`commands` is empty")),
        step(
            "3.2",
            "action: ExecuteBash, inputs: { command: [date] }",
            Refused("`ExecuteBash` needs the field `commands`"),
        ),
        step("3.3", "action: ExecuteBinary, inputs: { path: ansible-playbook, arguments: [-v, 'a b', 1] }", Valid),
        step("3.3", "action: ExecuteBinary, inputs: { path: /bin/date }", Valid),
        step(
            "3.3",
            "action: ExecuteBinary, inputs: { arguments: [x] }",
            Refused("`ExecuteBinary` needs the field `path`"),
        ),
        step("3.3", "action: ExecuteBinary, inputs: { path: '' }", Refused("`path` has to be a path")),
    ]
}

fn documents() -> Vec<Row> {
    let run = "action: ExecuteDocument, inputs: { document: /x.yaml }";
    vec![
        step(
            "3.4",
            "action: ExecuteDocument, inputs: { document: 's3://b/k', document-s3-bucket-owner: 123456789012, phases: 'build,test', parameters: [{ name: One, value: '{{ Port }}' }] }",
            Valid,
        ),
        step(
            "3.4",
            "action: ExecuteDocument, inputs: { document: 'arn:aws:imagebuilder:us-east-1:aws:component/x/1.0.0' }",
            Valid,
        ),
        step("3.4", &format!("{run}, timeoutSeconds: -1, maxAttempts: 1"), Valid),
        step("3.4", &format!("{run}, timeoutSeconds: 60"), Refused("`timeoutSeconds` of `ExecuteDocument` is -1")),
        step("3.4", &format!("{run}, maxAttempts: 2"), Refused("`maxAttempts` of `ExecuteDocument` is 1")),
        step(
            "3.4",
            "action: ExecuteDocument, inputs: { document: /x, parameters: { One: a } }",
            Refused("`parameters` has to be a list"),
        ),
        step(
            "3.4",
            "action: ExecuteDocument, inputs: { document: /x, parameters: [{ name: One }] }",
            Refused("needs the field `value`"),
        ),
        step("3.4", "action: ExecuteDocument, inputs: { phases: build }", Refused("needs the field `document`")),
    ]
}

fn transfers() -> Vec<Row> {
    vec![
        step(
            "3.6",
            "action: S3Download, inputs: [{ source: 's3://b/a/*', destination: /x, expectedBucketOwner: 123456789012, overwrite: 'false' }]",
            Valid,
        ),
        step("3.6", "action: S3Download, inputs: [{ source: 's3://b/{{ Port }}', destination: /x }]", Valid),
        step(
            "3.6",
            "action: S3Download, inputs: [{ source: 'https://b/a', destination: /x }]",
            Refused("`source` has to be of the form s3://BUCKET/KEY"),
        ),
        step("3.6", "action: S3Download, inputs: [{ source: 's3://b/a' }]", Refused("needs the field `destination`")),
        step(
            "3.6",
            "action: S3Download, inputs: [{ source: 's3://b/a', destination: /x, expectedBucketOwner: me }]",
            Refused("an account's 12 digits"),
        ),
        step(
            "3.7",
            "action: S3Upload, inputs: [{ source: '/x/*', destination: 's3://b/a/', recurse: true, expectedBucketOwner: '123456789012' }]",
            Valid,
        ),
        step(
            "3.7",
            "action: S3Upload, inputs: [{ source: /x, destination: /y }]",
            Refused("`destination` has to be of the form s3://BUCKET/KEY"),
        ),
        step(
            "3.7",
            "action: S3Upload, inputs: [{ source: '/*/x', destination: 's3://b/a' }]",
            Refused("`*` can stand in the last part of `source` only"),
        ),
        step(
            "3.8",
            "action: WebDownload, inputs: [{ source: 'https://x.example/a', destination: /x/, overwrite: false, checksum: abc, algorithm: SHA256, ignoreCertificateErrors: true }]",
            Valid,
        ),
        step(
            "3.8",
            "action: WebDownload, inputs: [{ source: 'ftp://x.example/a', destination: /x }]",
            Refused("`source` has to be an http or https address"),
        ),
        step(
            "3.8",
            "action: WebDownload, inputs: [{ source: 'https://x.example/a', destination: /x, checksum: abc, algorithm: CRC32 }]",
            Refused("`algorithm` has to be MD5, SHA1, SHA256 or SHA512"),
        ),
        step(
            "3.8",
            "action: WebDownload, inputs: [{ source: 'https://x.example/a', destination: /x, checksum: abc }]",
            Noted("without `algorithm` nothing is verified"),
        ),
    ]
}

fn files() -> Vec<Row> {
    vec![
        step("3.9", "action: AppendFile, inputs: [{ path: /x, content: more, encoding: UTF-16-BE }]", Valid),
        step("3.9", "action: AppendFile, inputs: [{ content: more }]", Refused("`AppendFile` needs the field `path`")),
        step(
            "3.9",
            "action: AppendFile, inputs: [{ path: /x, encoding: latin1 }]",
            Refused("`encoding` has to be utf8, utf16 or utf32"),
        ),
        step("3.9", "action: CopyFile, inputs: [{ source: '/x/*', destination: /y/, overwrite: false }]", Valid),
        step(
            "3.9",
            "action: CopyFile, inputs: [{ source: '/*/x', destination: /y/ }]",
            Refused("`*` can stand in the last part of `source` only"),
        ),
        step(
            "3.9",
            "action: CreateFile, inputs: [{ path: /x, content: '', encoding: utf8, owner: root, group: 0, permissions: 0644, overwrite: true }]",
            Valid,
        ),
        step(
            "3.9",
            "action: CreateFile, inputs: [{ path: /x, permissions: rw-r--r-- }]",
            Refused("`permissions` has to be octal digits"),
        ),
        on_windows(
            "3.9",
            "action: CreateFile, inputs: [{ path: 'C:\\x', owner: me }]",
            Refused("`owner` of `CreateFile` is not supported on Windows"),
        ),
        step("3.9", "action: CreateSymlink, inputs: [{ path: /x, target: /y, force: true }]", Valid),
        step(
            "3.9",
            "action: CreateSymlink, inputs: [{ path: /x }]",
            Refused("`CreateSymlink` needs the field `target`"),
        ),
        step("3.9", "action: DeleteFile, inputs: [{ path: '/x/*.log' }]", Valid),
        step(
            "3.9",
            "action: DeleteFile, inputs: [{ path: '/*/x.log' }]",
            Refused("`*` can stand in the last part of `path` only"),
        ),
        step("3.9", "action: MoveFile, inputs: [{ source: /x, destination: /y, overwrite: 'True' }]", Valid),
        step(
            "3.9",
            "action: MoveFile, inputs: [{ source: /x, destination: /y, overwrite: yes }]",
            Refused("`overwrite` has to be true or false"),
        ),
        step("3.9", "action: ReadFile, inputs: [{ path: /x, encoding: utf32, printFileContent: true }]", Valid),
        step("3.9", "action: ReadFile, inputs: [{ path: '' }]", Refused("`path` has to be a path")),
        step("3.9", "action: SetFileEncoding, inputs: [{ path: /x, encoding: utf-16-LE }]", Valid),
        step(
            "3.9",
            "action: SetFileEncoding, inputs: [{ encoding: utf8 }]",
            Refused("`SetFileEncoding` needs the field `path`"),
        ),
        step("3.9", "action: SetFileOwner, inputs: [{ path: /x, owner: root, group: adm }]", Valid),
        step("3.9", "action: SetFileOwner, inputs: [{ path: /x }]", Refused("`SetFileOwner` needs the field `owner`")),
        step("3.9", "action: SetFilePermissions, inputs: [{ path: /x, permissions: '0755' }]", Valid),
        step(
            "3.9",
            "action: SetFilePermissions, inputs: [{ path: /x, permissions: 999 }]",
            Refused("`permissions` has to be octal digits"),
        ),
    ]
}

fn folders() -> Vec<Row> {
    vec![
        step("3.9", "action: CopyFolder, inputs: [{ source: '/x*', destination: /y/, overwrite: true }]", Valid),
        step(
            "3.9",
            "action: CopyFolder, inputs: [{ source: /x }]",
            Refused("`CopyFolder` needs the field `destination`"),
        ),
        step(
            "3.9",
            "action: CreateFolder, inputs: [{ path: /x, owner: root, group: root, permissions: 777, overwrite: false }]",
            Valid,
        ),
        step(
            "3.9",
            "action: CreateFolder, inputs: [{ owner: root }]",
            Refused("`CreateFolder` needs the field `path`"),
        ),
        step("3.9", "action: DeleteFolder, inputs: [{ path: /x, force: true }]", Valid),
        step(
            "3.9",
            "action: DeleteFolder, inputs: [{ path: /x, force: sure }]",
            Refused("`force` has to be true or false"),
        ),
        step("3.9", "action: ListFiles, inputs: [{ path: /x, fileNamePattern: '*.log', recursive: true }]", Valid),
        step("3.9", "action: ListFiles, inputs: [{ recursive: true }]", Refused("`ListFiles` needs the field `path`")),
        step("3.9", "action: MoveFolder, inputs: [{ source: /x, destination: /y/, overwrite: false }]", Valid),
        step(
            "3.9",
            "action: MoveFolder, inputs: [{ destination: /y/ }]",
            Refused("`MoveFolder` needs the field `source`"),
        ),
        step("3.9", "action: SetFolderOwner, inputs: [{ path: /x, owner: root, group: adm, recursive: false }]", Valid),
        step(
            "3.9",
            "action: SetFolderOwner, inputs: [{ owner: root }]",
            Refused("`SetFolderOwner` needs the field `path`"),
        ),
        step("3.9", "action: SetFolderPermissions, inputs: [{ path: /x, permissions: 0750, recursive: true }]", Valid),
        step("3.9", "action: SetFolderPermissions, inputs: [{ path: /x }]", Refused("needs the field `permissions`")),
        step("3.9", "action: CreateFolder, inputs: text", Refused("the inputs of `CreateFolder` are a list")),
    ]
}

/// A document for Windows, whose first steps are none for Linux.
fn only_windows(section: &'static str, step: &str, expected: super::Expected) -> Row {
    let text = format!("schemaVersion: 1.0\nphases: [{{ name: build, steps: [{{ name: Step, {step} }}] }}]\n");
    Row { section, text, expected, platform: crate::document::component::Platform::Windows }
}

fn windows() -> Vec<Row> {
    let msi = "path: 'https://x.example/a.msi', reboot: Skip, logOptions: '*VX', logFile: 'C:\\l', properties: { A: '\"x\"' }, ignoreAuthenticodeSignatureErrors: true, allowUnsignedInstaller: false";
    vec![
        only_windows("3.5", "action: ExecutePowerShell, inputs: { commands: [Get-Date] }", Valid),
        only_windows("3.5", "action: ExecutePowerShell, inputs: { file: 'C:\\x.ps1' }", Valid),
        only_windows(
            "3.5",
            "action: ExecutePowerShell, inputs: { file: 'C:\\x.bat' }",
            Refused("`file` has to end in .ps1"),
        ),
        only_windows(
            "3.5",
            "action: ExecutePowerShell, inputs: { file: 'C:\\x.ps1', commands: [x] }",
            Refused("either `commands` or `file`, not both"),
        ),
        only_windows(
            "3.5",
            "action: ExecutePowerShell, inputs: {}",
            Refused("`ExecutePowerShell` needs `commands` or `file`"),
        ),
        step(
            "3.5",
            "action: ExecutePowerShell, inputs: { commands: [Get-Date] }",
            Refused("does not run on Linux (it runs on Windows)"),
        ),
        only_windows("3.10", &format!("action: InstallMSI, inputs: {{ {msi} }}"), Valid),
        only_windows("3.10", &format!("action: UninstallMSI, inputs: {{ {msi} }}"), Valid),
        only_windows(
            "3.10",
            "action: InstallMSI, inputs: { path: x, reboot: Never }",
            Refused("`reboot` has to be one of Allow, Force, Skip"),
        ),
        only_windows(
            "3.10",
            "action: InstallMSI, inputs: { path: x, logOptions: Z }",
            Refused("`Z` is no flag of msiexec's log"),
        ),
        only_windows(
            "3.10",
            "action: UninstallMSI, inputs: { path: x, properties: { REBOOT: Force } }",
            Refused("the property `REBOOT` can't be set"),
        ),
        step("3.10", "action: InstallMSI, inputs: { path: x }", Refused("does not run on Linux")),
    ]
}

fn registry() -> Vec<Row> {
    vec![
        only_windows(
            "3.12",
            "action: SetRegistry, inputs: [{ path: 'HKLM:\\SOFTWARE\\X', name: a, value: 1, type: DWORD }, { path: 'HKEY_USERS\\x', name: a, value: [b, c], type: MULTI_SZ }]",
            Valid,
        ),
        only_windows(
            "3.12",
            "action: SetRegistry, inputs: [{ path: 'SOFTWARE\\X', name: a, value: 1, type: DWORD }]",
            Refused("a key below one of HKEY_CLASSES_ROOT"),
        ),
        only_windows(
            "3.12",
            "action: SetRegistry, inputs: [{ path: 'HKLM:\\X', name: a, value: 1, type: WORD }]",
            Refused("`type` has to be one of BINARY"),
        ),
        only_windows(
            "3",
            "action: CreateSymlink, inputs: [{ path: x, target: y }]",
            Refused("does not run on Windows"),
        ),
        only_windows(
            "3",
            "action: SetFileOwner, inputs: [{ path: x, owner: y }]",
            Refused("it runs on Linux and macOS"),
        ),
    ]
}

fn system() -> Vec<Row> {
    vec![
        step("3.11", "action: Reboot, inputs: { delaySeconds: 60 }", Valid),
        step(
            "3.11",
            "action: Reboot, inputs: { delaySeconds: -1 }",
            Refused("`delaySeconds` has to be a whole number, not negative"),
        ),
        step("3.11", "action: Reboot, timeoutSeconds: 60", super::Strict("`Reboot` has no `timeoutSeconds`")),
        step("3.13", "action: UpdateOS, inputs: { include: [a, b], exclude: [c] }", Valid),
        step("3.13", "action: UpdateOS, inputs: { include: { a: b } }", Refused("`include` has to be a list")),
        step("3", "action: GoldsmithAttachDevice, inputs: { device: disk }", Valid),
        step(
            "3",
            "action: GoldsmithAttachDevice, inputs: { device: printer }",
            Refused("`device` has to be one of disk, networkCard"),
        ),
        step("3", "action: GoldsmithDetachDevice, inputs: { device: networkCard }", Valid),
        step(
            "3",
            "action: GoldsmithDetachDevice, inputs: { }",
            Refused("`GoldsmithDetachDevice` needs the field `device`"),
        ),
    ]
}
