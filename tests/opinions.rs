//! Second opinions on what is published: SeaweedFS, a strict server of S3, and moto, another stand-in for AWS. Both are Python
//! packages; `cargo xtask test --full` installs them and says where they are. Without them these tests say that they were
//! not run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::exports::nginx;
use crate::framework::{Goldsmith, Place, read, renamed};

/// The folder with the programs of a Python environment, if there is one.
fn programs(what: &str) -> Option<PathBuf> {
    let python = std::env::var_os("GOLDSMITH_TEST_PYTHON").map(PathBuf::from);
    let folder =
        python.and_then(|python| Some(python.parent()?.to_owned())).filter(|folder| folder.join(what).is_file());
    if folder.is_none() {
        eprintln!(
            "skipped: {what} is not beside the Python that GOLDSMITH_TEST_PYTHON names; `cargo xtask test --full` has it"
        );
    }
    folder
}

/// A server on loopback. It ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(program: &Path, arguments: &[String], folder: &Path, port: u16) -> Self {
        let log = fs_err::File::create(folder.join("server.log")).unwrap().into_file();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, port }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What curl says of a signed request; an answer that is no 200 is none.
    fn ask(&self, arguments: &[&str], path: &str) -> Option<Vec<u8>> {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-f", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "K:S"]).args(arguments);
        let output = curl.arg(format!("{}{path}", self.address())).output().unwrap();
        output.status.success().then_some(output.stdout)
    }

    fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(180);
        while !is_so() {
            assert!(Instant::now() < deadline, "waited for long until {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SeaweedFS takes half a minute to end when it is asked to.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Ports that nobody listens on.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn with_keys(goldsmith: Goldsmith) -> Goldsmith {
    goldsmith.env("AWS_ACCESS_KEY_ID", "K").env("AWS_SECRET_ACCESS_KEY", "S").env("AWS_EC2_METADATA_DISABLED", "true")
}

#[test]
fn objects_reach_a_server_that_compares_every_checksum() {
    let Some(programs) = programs("weed") else { return };
    let place = Place::new();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let actions = r#"["Admin","Read","List","Tagging","Write"]"#;
    let identity = r#"{"name":"ci","credentials":[{"accessKey":"K","secretKey":"S"}],"actions":"#;
    fs_err::write(folder.path().join("s3.json"), format!(r#"{{"identities":[{identity}{actions}}}]}}"#)).unwrap();
    // Those that are not said are derived from the others, and may be too large.
    let names = [
        "s3.port",
        "master.port",
        "volume.port",
        "filer.port",
        "s3.port.grpc",
        "master.port.grpc",
        "volume.port.grpc",
        "filer.port.grpc",
    ];
    let ports = free_ports::<8>();
    let mut arguments: Vec<String> =
        ["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=.", "-s3", "-s3.config=s3.json"]
            .map(str::to_owned)
            .into();
    let fixed = ["-master.volumeSizeLimitMB=256", "-volume.max=20", "-s3.port.iceberg=0", "-s3.port.lance=0"];
    arguments.extend(fixed.map(str::to_owned));
    arguments.extend(names.iter().zip(ports).map(|(name, port)| format!("-{name}={port}")));
    let server = Server::start(&programs.join("weed"), &arguments, folder.path(), ports[0]);
    server.wait_for("there is a bucket", || server.ask(&["-X", "PUT"], "/outgoing").is_some());
    // It takes buckets before it can store anything.
    server.wait_for("objects are stored", || server.ask(&["-T", "/etc/hostname"], "/outgoing/probe").is_some());
    renamed(&nginx().place, "nginx/1.0.0/1", "opinions/1.0.0/1");
    let text = "name: opinions\ndistributions:\n  - s3: { s3Bucket: outgoing, s3Prefix: vm }\n    \
                formats: [vmdk, raw.zst]\n    pointer: latest.json\n";
    let document = place.write("d.yaml", text);
    let arguments = ["publish", "opinions/1.0.0/1", "--distribution", &document.to_string_lossy(), "--s3-endpoint"];
    let address = server.address();
    let publish = place.goldsmith(&[&arguments[..], &[&address, "--json"]].concat());
    let published = with_keys(publish).run().success();
    assert_eq!(published.json()["published"], true);
    let file = nginx().place.path("out/nginx-1.0.0-1.vmdk");
    let object = server.ask(&[], "/outgoing/vm/opinions-1.0.0-1.vmdk").unwrap();
    assert!(object == fs_err::read(file).unwrap(), "the object is not the exported file");
    let pointer = server.ask(&[], "/outgoing/vm/latest.json").unwrap();
    let pointer: serde_json::Value = serde_json::from_slice(&pointer).unwrap();
    assert_eq!(pointer["image"], "opinions/1.0.0/1");
    let undo = [&arguments[..], &[&address, "--undo", "--force"]].concat();
    let _undone = with_keys(place.goldsmith(&undo)).run().success();
    assert!(server.ask(&[], "/outgoing/vm/latest.json").is_none(), "the pointer is still there");
}

/// Makes what a publication needs, and later says what it has made, by boto3.
const MOTO: &str = r#"
import json, sys, boto3
def of(name): return boto3.client(name, endpoint_url=sys.argv[1], region_name='eu-central-1')
ec2 = of('ec2')
if sys.argv[2] == 'prepare':
    base = ec2.register_image(Name='base')['ImageId']
    template = ec2.create_launch_template(LaunchTemplateName='web', LaunchTemplateData={'ImageId': base})
    of('sns').create_topic(Name='images')
    of('s3').create_bucket(Bucket='exports', CreateBucketConfiguration={'LocationConstraint': 'eu-central-1'})
    print(template['LaunchTemplate']['LaunchTemplateId'])
else:
    image = ec2.describe_images(Filters=[{'Name': 'name', 'Values': ['web 1']}])['Images'][0]
    shared = ec2.describe_image_attribute(ImageId=image['ImageId'], Attribute='launchPermission')
    version = ec2.describe_launch_template_versions(LaunchTemplateName='web', Versions=['$Default'])
    print(json.dumps({
        'image': image['ImageId'],
        'shared': [permission['UserId'] for permission in shared['LaunchPermissions']],
        'template': version['LaunchTemplateVersions'][0]['LaunchTemplateData']['ImageId'],
        'parameter': of('ssm').get_parameter(Name='/web/ami')['Parameter']['Value'],
        'bytes': of('s3').head_object(Bucket='exports', Key='moto-1.0.0-1.vmdk')['ContentLength'],
    }))
"#;

#[test]
fn another_stand_in_is_told_the_same() {
    let Some(programs) = programs("moto_server") else { return };
    let place = Place::new();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let [port] = free_ports();
    let arguments = ["-H".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()];
    let server = Server::start(&programs.join("moto_server"), &arguments, folder.path(), port);
    server.wait_for("moto answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let ask = |what: &str| {
        let mut python = Command::new(programs.join("python"));
        python
            .args(["-c", MOTO, &server.address(), what])
            .env("AWS_ACCESS_KEY_ID", "K")
            .env("AWS_SECRET_ACCESS_KEY", "S");
        let output = python.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let template = ask("prepare");
    renamed(&nginx().place, "nginx/1.0.0/1", "moto/1.0.0/1");
    let document = place.write(
        "d.yaml",
        &format!(
            "name: moto\nsnsTopicArn: arn:aws:sns:eu-central-1:123456789012:images\ndistributions:
  - region: eu-central-1
    amiDistributionConfiguration:
      name: 'web {{{{ imagebuilder:buildVersion }}}}'
      launchPermission: {{ userIds: ['111122223333'] }}
    launchTemplateConfigurations: [{{ launchTemplateId: {template}, setDefaultVersion: true }}]
    ssmParameterConfigurations: [{{ parameterName: /web/ami }}]
    s3ExportConfiguration: {{ diskImageFormat: VMDK, s3Bucket: exports }}
  - region: us-east-1
    copyFrom: eu-central-1
"
        ),
    );
    let address = server.address();
    let publish =
        ["publish", "moto/1.0.0/1", "--distribution", &document.to_string_lossy(), "--endpoint-url", &address];
    let published = with_keys(place.goldsmith(&publish)).run().success();
    let told: serde_json::Value = serde_json::from_str(&ask("tell")).unwrap();
    let image = told["image"].as_str().unwrap();
    assert!(published.stdout.contains(image), "{published}");
    assert_eq!((&told["template"], &told["parameter"]), (&image.into(), &image.into()), "{told}");
    assert_eq!(told["shared"][0], "111122223333");
    let vmdk = fs_err::metadata(nginx().place.path("out/nginx-1.0.0-1.vmdk")).unwrap().len();
    assert_eq!(told["bytes"], vmdk);
    let manifest = read(&place.home().join("images/moto/1.0.0/1/manifest.json"));
    assert!(manifest.contains(image), "{manifest}");
}
