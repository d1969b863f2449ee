//! The folder of backups against a real disk: what is kept, what is removed, what is told.

#![allow(clippy::unwrap_used)]
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use super::super::snapshot_out::tests::large_state;
use super::*;

const KEEP: usize = 3;
/// 2026-11-22 03:15:00.
const START_SECONDS: i64 = 1_795_317_300;

struct Rig {
    _folder: tempfile::TempDir,
    backups: BackupFolder,
    state: Arc<State>,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let backups = BackupFolder { path: folder.path().join("backups"), region: "west".to_owned(), floor_bytes: 0 };
        Rig { _folder: folder, backups, state: Arc::new(large_state()) }
    }

    fn look(&self) -> BackupReport {
        self.backups.perform(BackupWish::Look { keep: KEEP })
    }

    fn take(&self, seconds: i64) -> BackupReport {
        let meta = Meta { index: self.state.index().0, term: 2, ..Meta::default() };
        let at = WallTime::from_unix_nanos((START_SECONDS + seconds) * ONE_SECOND_NANOS);
        self.backups.perform(BackupWish::Take { keep: KEEP, state: Arc::clone(&self.state), meta, at })
    }

    fn name(&self, time: &str) -> String {
        format!("holdfast-west-20261122T{time}Z-{}.snap", self.state.index().0)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.backups.path.join(name)
    }

    fn names(&self) -> Vec<String> {
        let listing = fs::read_dir(&self.backups.path).unwrap();
        let mut names: Vec<String> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn flip(&self, name: &str) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(self.path(name), bytes).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// R8.16
#[test]
fn as_many_as_are_kept_stay_and_what_is_not_ours_is_not_touched() {
    let rig = Rig::new();
    let empty = rig.look();
    assert_eq!(empty, BackupReport { looked: true, ..BackupReport::default() });
    assert_eq!(mode(&rig.backups.path), 0o700);
    let foreign = [
        "notes.txt",
        "holdfast-west-20261122T031500Z-7.snap.old",
        "holdfast-east-20200101T000000Z-7.snap",
        "holdfast-west-far-20200101T000000Z-7.snap",
        "holdfast-west-20200101T000000Z-.snap",
        "holdfast-west-20200101T000000Z-x.snap",
        "holdfast-west-20201301T000000Z-7.snap",
        "holdfast-east-20200101T000000Z-7.snap.tmp",
    ];
    foreign.iter().for_each(|name| fs::write(rig.path(name), name).unwrap());
    let folder = "holdfast-west-20200101T000000Z-1.snap";
    fs::create_dir(rig.path(folder)).unwrap();
    let link = "holdfast-west-20200101T000000Z-2.snap";
    symlink(rig.path("notes.txt"), rig.path(link)).unwrap();
    for nth in 0..6 {
        let report = rig.take(nth * 60);
        assert!(report.taken && report.error.is_none() && report.damaged.is_empty(), "{report:?}");
        assert_eq!(report.good, KEEP.min(nth as usize + 1));
        let newest = report.newest.unwrap();
        let path = Path::new(&newest.file);
        assert_eq!((mode(path), fs::metadata(path).unwrap().len()), (0o600, newest.bytes));
        assert_eq!(newest.at.unix_seconds(), START_SECONDS + nth * 60);
    }
    let mut expected: Vec<String> = ["031800", "031900", "032000"].map(|time| rig.name(time)).to_vec();
    expected.extend(foreign.iter().chain([&folder, &link]).map(|name| (*name).to_owned()));
    expected.sort();
    assert_eq!(rig.names(), expected);
    foreign.iter().for_each(|name| assert_eq!(fs::read_to_string(rig.path(name)).unwrap(), *name));
    let (meta, state) = look_through(&fs::read(rig.path(&rig.name("032000"))).unwrap()).unwrap();
    assert_eq!((meta.index, meta.term), (rig.state.index().0, 2));
    assert_eq!(snapshot::read(&state).unwrap().digest(), rig.state.digest());
}

// R8.16
#[test]
fn a_damaged_one_is_told_and_no_good_one_is_removed_for_it() {
    let rig = Rig::new();
    (0..3).for_each(|nth| drop(rig.take(nth * 60)));
    let names = ["031500", "031600", "031700", "031800", "031900", "032000"].map(|time| rig.name(time));
    rig.flip(&names[1]);
    let report = rig.look();
    assert_eq!((report.good, report.damaged.len()), (2, 1));
    assert!(report.damaged[0].starts_with(&format!("{}: failed ", rig.path(&names[1]).display())), "{report:?}");
    // Two good ones and the new one: none is too many, and the damaged one stays where it is.
    let report = rig.take(180);
    assert_eq!((report.good, report.damaged.len(), rig.names().as_slice()), (3, 1, &names[..4]));
    // The oldest goes, and the damaged one with the round after that in which it was told last.
    let report = rig.take(240);
    assert_eq!((report.good, report.damaged.len(), rig.names().as_slice()), (3, 1, &names[1..5]));
    let report = rig.take(300);
    assert_eq!((report.good, report.damaged.len(), rig.names().as_slice()), (3, 0, &names[3..]));
    // One that is cut short, one of nothing, one that cannot be read: the newest good one is the one before.
    fs::write(rig.path(&names[5]), "").unwrap();
    let bytes = fs::read(rig.path(&names[4])).unwrap();
    fs::write(rig.path(&names[4]), &bytes[..bytes.len() - 1]).unwrap();
    let report = rig.look();
    assert_eq!((report.good, report.damaged.len()), (1, 2));
    assert_eq!(report.newest.unwrap().file, rig.path(&names[3]).display().to_string());
}

#[test]
fn what_a_dead_process_left_is_removed() {
    let rig = Rig::new();
    rig.take(0);
    let left = format!("{}{UNFINISHED}", rig.name("031600"));
    fs::write(rig.path(&left), "half").unwrap();
    assert_eq!(rig.look().good, 1);
    assert_eq!(rig.names(), [rig.name("031500")]);
}

#[test]
fn names_are_in_order_though_the_calendar_is_set_back() {
    let rig = Rig::new();
    for seconds in [600, 0, 0] {
        assert!(rig.take(seconds).taken);
    }
    assert_eq!(rig.names(), ["032500", "032501", "032502"].map(|time| rig.name(time)));
    // The newest stays also then.
    assert!(rig.take(0).taken && rig.take(601).taken);
    assert_eq!(rig.names(), ["032502", "032503", "032504"].map(|time| rig.name(time)));
}

#[test]
fn what_cannot_be_written_is_told_with_its_path_and_leaves_nothing() {
    let rig = Rig::new();
    rig.take(0);
    // A folder in the place of the file that would be written: the same for whoever runs this.
    let in_the_way = rig.path(&format!("{}{UNFINISHED}", rig.name("031600")));
    fs::create_dir(&in_the_way).unwrap();
    let report = rig.take(60);
    let error = report.error.clone().unwrap();
    assert!(error.starts_with(&format!("writing {}: ", in_the_way.display())), "{error}");
    assert_eq!((report.taken, report.looked, report.good), (false, true, 1));
    fs::remove_dir(&in_the_way).unwrap();
    assert!(rig.take(60).taken);

    let nowhere = BackupFolder { path: rig.path("not/mounted"), ..rig.backups.clone() };
    let report = nowhere.perform(BackupWish::Look { keep: 1 });
    assert!(!report.looked && report.error.as_ref().unwrap().starts_with("making "), "{report:?}");
    assert!(!rig.path("not").exists(), "nothing is put in the place of what is not mounted");
    let file = BackupFolder { path: rig.path(&rig.name("031500")), ..rig.backups.clone() };
    let error = file.perform(BackupWish::Look { keep: 1 }).error.unwrap();
    assert!(error.starts_with("listing "), "{error}");
}

// R8.17
#[test]
fn the_last_room_is_not_taken() {
    let mut rig = Rig::new();
    rig.take(0);
    rig.backups.floor_bytes = 1 << 60;
    let report = rig.take(60);
    let error = report.error.clone().unwrap();
    let begins = format!("{}: ", rig.backups.path.display());
    assert!(error.starts_with(&begins) && error.contains(" bytes are free on its disk; "), "{error}");
    assert_eq!((report.taken, report.good, rig.names().len()), (false, 1, 1));
}
