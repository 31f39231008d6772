use super::*;

#[test]
fn references_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let resolved = |text: &str| match resolve(text, folder.path()).map(|resolved| resolved.reference) {
        Ok(Reference::Path(path)) => {
            format!("path {}", path.strip_prefix(folder.path()).unwrap_or(&path).display())
        }
        Ok(Reference::Base(name)) => format!("base {name}"),
        Ok(Reference::Image(pattern)) => format!("image {pattern}"),
        Ok(Reference::Url(url)) => format!("url {url}"),
        Err(error) => error.to_string(),
    };
    let list = [
        "debian-12-minimal",
        "aliases",
        "nginx",
        "nginx/1.x.x",
        "./disk.qcow2",
        "/srv/disk.raw",
        "https://x.example/y.qcow2",
        "arn:aws:imagebuilder:us-east-1:aws:image/debian-12-minimal/x.x.x",
        "arn:aws:imagebuilder:us-east-1:123456789012:image/nginx/1.0.x",
        "ami-0abcdef",
        "a/b/c/d",
        "ftp://me:hunter2@example.org/x.qcow2",
    ];
    insta::assert_snapshot!(list.map(|text| format!("{text} -> {}", resolved(text))).join("\n"), @"
        debian-12-minimal -> base debian-12-minimal
        aliases -> image aliases/x.x.x
        nginx -> image nginx/x.x.x
        nginx/1.x.x -> image nginx/1.x.x
        ./disk.qcow2 -> path disk.qcow2
        /srv/disk.raw -> path /srv/disk.raw
        https://x.example/y.qcow2 -> url https://x.example/y.qcow2
        arn:aws:imagebuilder:us-east-1:aws:image/debian-12-minimal/x.x.x -> base debian-12-minimal
        arn:aws:imagebuilder:us-east-1:123456789012:image/nginx/1.0.x -> image nginx/1.0.x
        ami-0abcdef -> the parent `ami-0abcdef` is in AWS and has no counterpart here
        a/b/c/d -> there is no parent `a/b/c/d`: neither a base image nor an image of the store
        ftp://me:hunter2@example.org/x.qcow2 -> there is no parent `ftp://***@example.org/x.qcow2`: neither a base image nor an image of the store
        ");
}

/// A disk of another format is converted once, and is the same parent from then on.
#[tokio::test]
async fn a_raw_disk_is_the_same_parent_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    let bytes = [vec![0; 1 << 20], vec![7; 1 << 20]].concat();
    fs::write(&disk, bytes).unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let reference = Reference::Path(disk.clone());
    assert!(known(&reference, None, folder.path(), &store).await.unwrap().is_none());
    let mut parents = Vec::new();
    for _ in 0..2 {
        let run = store.begin_run("test").unwrap();
        parents.push(obtain(&reference, None, folder.path(), &store, &run, &|_| {}).await.unwrap());
    }
    parents.extend(known(&reference, None, folder.path(), &store).await.unwrap());
    assert_eq!(parents.iter().map(|parent| parent.cached).collect::<Vec<_>>(), [false, true, true]);
    let digest = file::sha256(&disk).unwrap();
    for parent in &parents {
        assert_eq!((&parent.sha256, &parent.disk, parent.virtual_size), (&digest, &parents[0].disk, 2 << 20));
    }
    fs::write(&disk, vec![8; 2 << 20]).unwrap();
    assert!(known(&reference, None, folder.path(), &store).await.unwrap().is_none());
}

/// A publisher with a folder of files.
async fn publisher(folder: PathBuf) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (reader, mut writer) = stream.split();
            let mut lines = BufReader::new(reader).lines();
            let request = lines.next_line().await.unwrap().unwrap_or_default();
            while lines.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
            let name = request.split([' ', '/']).nth(2).unwrap_or_default();
            let body = fs::read(folder.join(name)).unwrap_or_default();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            writer.write_all(head.as_bytes()).await.unwrap();
            writer.write_all(&body).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_base_image_is_got_anew_once_its_publisher_has_another() {
    let folder = tempfile::tempdir().unwrap();
    let (published, here) = (folder.path().join("published"), folder.path());
    fs::create_dir_all(&published).unwrap();
    fs::create_dir_all(here.join("base-images")).unwrap();
    let publish = |byte: u8| {
        let disk = vec![byte; 1 << 20];
        let list = format!("{}  disk.raw\n", file::sha256_of(&disk));
        fs::write(published.join("disk.raw"), disk).unwrap();
        fs::write(published.join("SUMS"), list).unwrap();
    };
    let address = publisher(published.clone()).await;
    let description = format!("description: d\nurl: {address}/disk.raw\nchecksumFile: {address}/SUMS\n");
    fs::write(here.join("base-images/theirs.yaml"), description).unwrap();
    let store = Store::open(here.join("store")).unwrap();
    let reference = Reference::Base("theirs".to_owned());
    let run = store.begin_run("test").unwrap();
    let obtained = async || obtain(&reference, None, here, &store, &run, &|_| {}).await.unwrap().sha256;
    let renewed =
        async || renew(&reference, here, &store, &run, &|_| {}).await.unwrap().is_some_and(|parent| !parent.cached);
    let now = async || current(&reference, None, here, &store).await.unwrap();
    publish(1);
    let (first, first_seen) = (obtained().await, now().await);
    assert!(!renewed().await, "it was got twice");
    publish(2);
    assert_eq!(obtained().await, first, "a build without a pipeline takes what is here");
    assert_ne!(now().await, first_seen);
    assert!(renewed().await);
    assert_ne!(obtained().await, first);
    assert!(!renewed().await);
    // Another parent is looked for at each build.
    let path = Reference::Path(published.join("disk.raw"));
    assert!(renew(&path, here, &store, &run, &|_| {}).await.unwrap().is_none());
}
