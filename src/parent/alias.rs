//! Parents by the names that AWS has for them: which base image stands in for an ARN, a parameter or an AMI.
//!
//! ```text
//!   arn:…:image/NAME/VERSION ──┐
//!   ssm:NAME ──────────────────┼─► base-images/aliases.yaml: the user's, then the shipped one ─► a base image
//!   ami-… ─────────────────────┘      └ none: an ARN's name may be a base image's or an image's of the store
//! ```

use std::path::Path;

use super::{Error, Reference, Resolved, catalogue};
use crate::document::alias::{self, Alias, Kind};
use crate::document::arn::{Arn, Owner};
use crate::document::decode::suggest;
use crate::document::shipped;

/// All aliases, the user's own first.
pub fn all(folder: &Path) -> Result<Vec<Alias>, Error> {
    let mut aliases = Vec::new();
    for source in catalogue::alias_tables(folder)?.into_iter().chain([shipped::aliases()]) {
        aliases.extend(alias::decode(&source).map_err(|report| Error::Description(Box::new(report)))?);
    }
    Ok(aliases)
}

/// What a name of AWS's means here; none if a text is no such name.
pub(super) fn resolve(text: &str, folder: &Path) -> Result<Option<Resolved>, Error> {
    if text.starts_with("arn:") {
        return image(text, folder).map(Some);
    }
    if text.starts_with("ami-") {
        let mut resolved = stand_in(text, Kind::Ami, text, folder)?.ok_or_else(|| unmapped(text, Kind::Ami, folder))?;
        // An id promises certain bytes, which nothing here can keep.
        resolved.warning =
            resolved.note.take().map(|note| format!("{note}: an equivalent, and not the bytes of that AMI"));
        return Ok(Some(resolved));
    }
    let Some(parameter) = text.strip_prefix("ssm:") else { return Ok(None) };
    let names = parameter_names(parameter);
    for name in &names {
        if let Some(resolved) = stand_in(text, Kind::Parameter, name, folder)? {
            return Ok(Some(resolved));
        }
    }
    Err(unmapped(text, Kind::Parameter, folder))
}

/// A base image or an image of the store by an ARN of Image Builder's.
fn image(text: &str, folder: &Path) -> Result<Resolved, Error> {
    let foreign = |help: String| Error::Foreign { name: text.to_owned(), help };
    let arn: Arn = text.parse().map_err(|error| foreign(format!("{error}")))?;
    if arn.kind != "image" {
        return Err(foreign(format!("it is the ARN of another kind, `{}`, and no image's", arn.kind)));
    }
    if let Some(resolved) = stand_in(text, Kind::Image, &arn.name, folder)? {
        return Ok(resolved);
    }
    if catalogue::find(&arn.name, folder)?.is_some() {
        return Ok(Reference::Base(arn.name).into());
    }
    if arn.owner == Owner::Amazon {
        return Err(unmapped(text, Kind::Image, folder));
    }
    let version = arn.version.as_deref().unwrap_or("x.x.x");
    let pattern = format!("{}/{version}", arn.name).parse();
    pattern.map(|pattern| Reference::Image(pattern).into()).map_err(|error| foreign(format!("{error}")))
}

/// The names by which a parameter may stand in a table: of `arn:aws:ssm:REGION:ACCOUNT:parameter/a/b` it is not known
/// whether the name begins with a slash.
fn parameter_names(text: &str) -> Vec<String> {
    // NAME:3 and NAME:label are versions of it.
    let unversioned = |name: &str| name.split(':').next().unwrap_or(name).to_owned();
    match text.split_once(":parameter/") {
        Some((_, name)) => vec![unversioned(&format!("/{name}")), unversioned(name)],
        None => vec![unversioned(text)],
    }
}

fn stand_in(text: &str, kind: Kind, name: &str, folder: &Path) -> Result<Option<Resolved>, Error> {
    let Some(alias) = all(folder)?.into_iter().find(|alias| alias.means(kind, name)) else { return Ok(None) };
    if catalogue::find(&alias.base, folder)?.is_none() {
        let help = format!("a table of aliases says that it is the base image `{}`, which there is not", alias.base);
        return Err(Error::Foreign { name: text.to_owned(), help });
    }
    let note = format!("the base image {} stands in for {text}", alias.base);
    Ok(Some(Resolved { reference: Reference::Base(alias.base), note: Some(note), warning: None }))
}

/// Nothing stands in for it: why not, if that is known, and what to do.
fn unmapped(text: &str, kind: Kind, folder: &Path) -> Error {
    let lower = text.to_lowercase();
    let help = if ["windows", "macos"].iter().any(|system| lower.contains(system)) {
        "images made here are Linux".to_owned()
    } else if ["arm64", "aarch64"].iter().any(|processor| lower.contains(processor)) {
        "it is for ARM processors, and images made here are for x86-64".to_owned()
    } else {
        let own =
            "add it to base-images/aliases.yaml beside the recipe, or export it from AWS as a disk and name the file";
        match nearest(text, kind, folder) {
            Some(nearest) => format!("{nearest} Otherwise {own}"),
            None => own.to_owned(),
        }
    };
    Error::Foreign { name: text.to_owned(), help }
}

/// The alias that is meant perhaps; of an AMI's id nothing can be guessed.
fn nearest(text: &str, kind: Kind, folder: &Path) -> Option<String> {
    let aliases = all(folder).ok()?;
    let names = aliases.iter().filter(|alias| alias.kind == kind && kind != Kind::Ami);
    let names: Vec<&str> = names.map(|alias| alias.name.as_str()).collect();
    let name = match kind {
        Kind::Image => text.parse::<Arn>().map(|arn| arn.name).unwrap_or_default(),
        Kind::Parameter => parameter_names(text.trim_start_matches("ssm:")).swap_remove(0),
        Kind::Ami => return None,
    };
    suggest(&name, &names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "
images: { red-hat-enterprise-linux-9-x86: almalinux-9, broken: nothing }
amis: { ami-0a1b2c: debian-12 }
";

    /// What a list of names means beside a table of the user's own.
    fn shown(names: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("base-images")).unwrap();
        fs_err::write(folder.path().join("base-images/aliases.yaml"), OWN).unwrap();
        let shown = |name: &&str| match resolve(name, folder.path()) {
            Ok(Some(Resolved { reference: Reference::Base(base), note, warning })) => {
                let said = note.into_iter().chain(warning.map(|warning| format!("WARNING {warning}")));
                format!("{name}\n  = {base}; {}", said.collect::<String>().replace(name, "it"))
            }
            Ok(other) => format!("{name}\n  = {other:?}"),
            Err(Error::Foreign { help, .. }) => format!("{name}\n  ! {help}"),
            Err(error) => format!("{name}\n  ! {error}"),
        };
        names.iter().map(shown).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn base_images_stand_in_for_what_aws_names() {
        insta::assert_snapshot!(shown(&[
            "arn:aws:imagebuilder:us-east-1:aws:image/ubuntu-server-24-lts-x86/x.x.x",
            "arn:aws-us-gov:imagebuilder:us-gov-west-1:aws:image/amazon-linux-2023-x86/2025.1.1/1",
            "arn:aws:imagebuilder:us-east-1:aws:image/red-hat-enterprise-linux-9-x86/x.x.x",
            "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
            "ssm:arn:aws:ssm:eu-west-1::parameter/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
            "ssm:/aws/service/debian/release/12/latest/amd64:3",
            "ami-0a1b2c",
            "arn:aws:imagebuilder:us-east-1:123456789012:image/nginx/1.0.x",
            "debian-12",
        ]), @r#"
        arn:aws:imagebuilder:us-east-1:aws:image/ubuntu-server-24-lts-x86/x.x.x
          = ubuntu-24.04; the base image ubuntu-24.04 stands in for it
        arn:aws-us-gov:imagebuilder:us-gov-west-1:aws:image/amazon-linux-2023-x86/2025.1.1/1
          = amazon-linux-2023; the base image amazon-linux-2023 stands in for it
        arn:aws:imagebuilder:us-east-1:aws:image/red-hat-enterprise-linux-9-x86/x.x.x
          = almalinux-9; the base image almalinux-9 stands in for it
        ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
          = amazon-linux-2023; the base image amazon-linux-2023 stands in for it
        ssm:arn:aws:ssm:eu-west-1::parameter/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id
          = ubuntu-24.04; the base image ubuntu-24.04 stands in for it
        ssm:/aws/service/debian/release/12/latest/amd64:3
          = debian-12; the base image debian-12 stands in for it
        ami-0a1b2c
          = debian-12; WARNING the base image debian-12 stands in for it: an equivalent, and not the bytes of that AMI
        arn:aws:imagebuilder:us-east-1:123456789012:image/nginx/1.0.x
          = Some(Resolved { reference: Image(Pattern { name: ImageName("nginx"), version: VersionPattern { major: Some(1), minor: Some(0), patch: None }, build: None, channel: None }), note: None, warning: None })
        debian-12
          = None
        "#);
    }

    #[test]
    fn what_nothing_stands_in_for_is_said_with_what_to_do() {
        insta::assert_snapshot!(shown(&[
            "arn:aws:imagebuilder:us-east-1:aws:image/ubuntu-server-20-lts-x86/x.x.x",
            "arn:aws:imagebuilder:us-east-1:aws:image/suse-linux-enterprise-server-15-x86/x.x.x",
            "arn:aws:imagebuilder:us-east-1:aws:image/amazon-linux-2023-arm64/x.x.x",
            "arn:aws:imagebuilder:us-east-1:aws:image/windows-server-2022-english-full-base-x86/x.x.x",
            "arn:aws:imagebuilder:us-east-1:aws:image/broken/x.x.x",
            "arn:aws:imagebuilder:us-east-1:aws:component/update-linux/x.x.x",
            "arn:aws:ec2:us-east-1::image/ami-0abcdef",
            "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64",
            "ssm:/golden/base",
            "ami-0abcdef",
        ]), @"
        arn:aws:imagebuilder:us-east-1:aws:image/ubuntu-server-20-lts-x86/x.x.x
          ! did you mean `ubuntu-server-24-lts-x86`? Otherwise add it to base-images/aliases.yaml beside the recipe, or export it from AWS as a disk and name the file
        arn:aws:imagebuilder:us-east-1:aws:image/suse-linux-enterprise-server-15-x86/x.x.x
          ! add it to base-images/aliases.yaml beside the recipe, or export it from AWS as a disk and name the file
        arn:aws:imagebuilder:us-east-1:aws:image/amazon-linux-2023-arm64/x.x.x
          ! it is for ARM processors, and images made here are for x86-64
        arn:aws:imagebuilder:us-east-1:aws:image/windows-server-2022-english-full-base-x86/x.x.x
          ! images made here are Linux
        arn:aws:imagebuilder:us-east-1:aws:image/broken/x.x.x
          ! a table of aliases says that it is the base image `nothing`, which there is not
        arn:aws:imagebuilder:us-east-1:aws:component/update-linux/x.x.x
          ! it is the ARN of another kind, `component`, and no image's
        arn:aws:ec2:us-east-1::image/ami-0abcdef
          ! `arn:aws:ec2:us-east-1::image/ami-0abcdef` is no ARN of Image Builder's: these are arn:PARTITION:imagebuilder:REGION:ACCOUNT:KIND/NAME/VERSION
        ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64
          ! it is for ARM processors, and images made here are for x86-64
        ssm:/golden/base
          ! add it to base-images/aliases.yaml beside the recipe, or export it from AWS as a disk and name the file
        ami-0abcdef
          ! add it to base-images/aliases.yaml beside the recipe, or export it from AWS as a disk and name the file
        ");
    }
}
