//! Points in time and their text form.
//!
//! [`Instant`] is monotonic and belongs to one process; [`WallTime`] is the calendar. They are two types so that
//! the two cannot be mixed. Neither is ever read here: the edge reads a clock once for each event and hands the
//! value in. (Model: smoltcp `time.rs`.)

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A monotonic point in time, nanoseconds since the process (or the simulated world) began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The beginning.
    pub const ZERO: Instant = Instant(0);

    /// From nanoseconds since the beginning.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the beginning.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How much later `self` is than `earlier`; zero when it is not later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of time (584 years).
    fn add(self, rhs: Duration) -> Instant {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// Saturates at zero.
    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

/// A calendar time: nanoseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(i64);

impl WallTime {
    /// From nanoseconds since the Unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> WallTime {
        WallTime(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn unix_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// The nanoseconds within the second, 0 to 999,999,999.
    pub const fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }

    /// RFC 3339 in UTC with as many fractional digits as are needed, as Go's `RFC3339Nano` prints it.
    pub fn rfc3339(self) -> String {
        format_rfc3339(self.unix_seconds(), self.subsec_nanos())
    }

    /// ISO 8601's basic form, whole seconds, UTC: `20261122T031500Z`. As text it sorts as in time.
    pub fn basic_utc(self) -> String {
        format_rfc3339(self.unix_seconds(), 0).replace(['-', ':'], "")
    }

    /// Reads what [`WallTime::basic_utc`] writes; `None` for any other text.
    pub fn from_basic_utc(text: &str) -> Option<WallTime> {
        let digits = text.get(..8).zip(text.get(9..15)).filter(|_| text.len() == 16);
        let (date, time) = digits.filter(|_| text.get(8..9) == Some("T") && text.ends_with('Z'))?;
        if !date.bytes().chain(time.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = |from: &str| from.parse::<i64>().ok();
        let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
        let (hour, minute, second) = (number(&time[..2])?, number(&time[2..4])?, number(&time[4..])?);
        // Days up to the year's first of March, and on from there: the leap day is the last of such a year.
        let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
        let days = years * 365 + leap_days + (months * 153 + 2) / 5 + day - 1 - 719_468;
        let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
        let found = WallTime(seconds.checked_mul(1_000_000_000)?);
        // A 31st of February reads as another day, and so is found out.
        (found.basic_utc() == text).then_some(found)
    }

    /// As HTTP writes it (IMF-fixdate, RFC 9110 section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn http_date(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, rest) = (self.unix_seconds().div_euclid(86_400), self.unix_seconds().rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        // The first of January 1970 was a Thursday.
        let day_name = DAYS[days.rem_euclid(7) as usize];
        let month_name = MONTHS[(month as usize - 1) % 12];
        format!(
            "{day_name}, {day:02} {month_name} {year:04} {:02}:{:02}:{:02} GMT",
            rest / 3600,
            rest / 60 % 60,
            rest % 60
        )
    }
}

/// RFC 3339 in UTC for `seconds` since the Unix epoch (any year from 1 on) and nanoseconds within the second.
pub fn format_rfc3339(seconds: i64, nanos: u32) -> String {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if nanos != 0 {
        let digits = format!("{nanos:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day of the proleptic Gregorian calendar for a count of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // Eras of 400 years that begin on the first of March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// A calendar that runs on evenly: it begins as the calendar is, and is carried on by the monotonic clock. A calendar
/// that is set while something rests on it changes nothing, neither forward nor backward.
#[derive(Clone, Copy, Debug, Default)]
pub struct SteadyTime {
    anchor: Option<(Instant, i64)>,
}

impl SteadyTime {
    /// The time, nanoseconds since the Unix epoch: never before `floor`, never before what was read before. Where
    /// `follows` says that nothing rests on it, a calendar that is ahead is followed; else not even the first reading
    /// leaps ahead of `floor`, the time of whoever led before.
    pub fn read(&mut self, now: Instant, wall: WallTime, floor: i64, follows: bool) -> i64 {
        let steady = match self.anchor {
            // Something rests on it already: whoever goes on from another's time goes on where that ended.
            None if floor > 0 && !follows => floor,
            None => wall.0,
            Some((at, time)) => time.saturating_add(i64::try_from(now.since(at).as_nanos()).unwrap_or(i64::MAX)),
        };
        let ahead = if follows { wall.0 } else { i64::MIN };
        let time = steady.max(floor).max(ahead);
        if self.anchor.is_none() || time != steady {
            self.anchor = Some((now, time));
        }
        time
    }
}

/// Where the edge gets its time from; pure rooms take `now` as an argument instead.
pub trait Clock {
    /// The monotonic time.
    fn now(&self) -> Instant;
    /// The calendar time.
    fn wall(&self) -> WallTime;
}

/// Reads a duration as operators write it: numbers with a unit (`h`, `m`, `s`, `ms`, `us`, `ns`), one after
/// another, the numbers with or without a fraction: `"5s"`, `"1m30s"`, `"1.5s"`. A bare `"0"` is zero.
///
/// # Errors
/// A sentence that says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("{text:?} is not a duration: {why}, write for example \"5s\" or \"1m30s\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    let mut rest = text;
    let mut total_nanos: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| wrong("a number is missing"))?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit_len] {
            "h" => 3.6e12,
            "m" => 6e10,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            "" => return Err(wrong("a unit is missing")),
            _ => return Err(wrong("the unit is unknown")),
        };
        total_nanos += number * scale;
        rest = &rest[unit_len..];
    }
    if !total_nanos.is_finite() || total_nanos > 9.2e18 {
        return Err(wrong("it is too long"));
    }
    Ok(Duration::from_nanos(total_nanos.round() as u64))
}

/// The shortest text that [`parse_duration`] reads back to the same value, in Go's style (`"1m30s"`, `"1.5s"`).
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let fraction = |whole_nanos: u128, unit: u128, name: &str| {
        let mut text = format!("{}", whole_nanos / unit);
        let rest = whole_nanos % unit;
        if rest != 0 {
            let width = unit.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            text.push('.');
            text.push_str(digits.trim_end_matches('0'));
        }
        text + name
    };
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "us"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let hours = nanos / 3_600_000_000_000;
            let minutes = nanos / 60_000_000_000 % 60;
            let seconds = nanos % 60_000_000_000;
            let mut text = String::new();
            if hours > 0 {
                text += &format!("{hours}h");
            }
            if minutes > 0 {
                text += &format!("{minutes}m");
            }
            if seconds > 0 {
                text += &fraction(seconds, 1_000_000_000, "s");
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_alike() {
        for (text, nanos) in [
            ("5s", 5_000_000_000u64),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("250ms", 250_000_000),
            ("1h", 3_600_000_000_000),
            ("1.5us", 1_500),
            ("7ns", 7),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(format_duration(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "5x", "1..5s", "-1s", "5 s", "1e3s", "999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn basic_times_read_and_print_alike() {
        let at = |seconds: i64| WallTime::from_unix_nanos(seconds * 1_000_000_000);
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_795_317_300, "20261122T031500Z"),
            (4_107_542_400, "21000301T000000Z"),
            (-1, "19691231T235959Z"),
        ] {
            assert_eq!(at(seconds).basic_utc(), text);
            assert_eq!(WallTime::from_basic_utc(text), Some(at(seconds)), "{text}");
        }
        for bad in [
            "",
            "20261122T031500",
            "20261122T031500z",
            "20261122 031500Z",
            "20261322T031500Z",
            "20260229T000000Z",
            "20261122T240000Z",
            "20261122T031560Z",
            "2026112\u{e4}031500Z",
            "+0261122T031500Z",
            "99991122T031500Z",
        ] {
            assert_eq!(WallTime::from_basic_utc(bad), None, "{bad}");
        }
    }

    #[test]
    fn calendar_times_print_as_go_prints_them() {
        assert_eq!(WallTime::from_unix_nanos(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(WallTime::from_unix_nanos(1_795_261_300_539_945_900).rfc3339(), "2026-11-21T11:41:40.5399459Z");
        assert_eq!(format_rfc3339(-62_135_596_800, 0), "0001-01-01T00:00:00Z");
        assert_eq!(WallTime::from_unix_nanos(951_782_400_000_000_000).rfc3339(), "2000-02-29T00:00:00Z");
    }

    #[test]
    fn dates_of_http_have_one_form() {
        // RFC 9110 section 5.6.7 has the first as its example.
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (1_709_164_799, "Wed, 28 Feb 2024 23:59:59 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        ] {
            assert_eq!(WallTime::from_unix_nanos(seconds * 1_000_000_000).http_date(), text);
        }
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::ZERO - (Instant::ZERO + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((Instant::ZERO + Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!((Instant::ZERO + Duration::from_millis(1250)).to_string(), "1.250s");
    }

    // Reliability goal 17: no lock ends early because a calendar was set.
    #[test]
    fn steady_time_is_not_disturbed_by_a_calendar_that_is_set() {
        let mut time = SteadyTime::default();
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
        let wall = |seconds: i64| WallTime::from_unix_nanos(seconds * 1_000_000_000);
        for (now, set, floor, follows, expected) in [
            (0, 1000, 0, false, 1000),
            (5, 1005, 0, false, 1005),
            (6, 4606, 0, false, 1006),
            (7, 0, 0, false, 1007),
            (7, 0, 1200, false, 1200),
            (8, 0, 0, true, 1201),
            (9, 4609, 0, true, 4609),
            (10, 9, 0, true, 4610),
        ] {
            assert_eq!(
                time.read(at(now), wall(set), floor * 1_000_000_000, follows),
                expected * 1_000_000_000,
                "t={now}"
            );
        }
    }

    // R8.3: a leader whose calendar is ahead ends no lock that it found.
    #[test]
    fn whoever_goes_on_from_anothers_time_does_not_leap() {
        let (now, wall) = (Instant::ZERO + Duration::from_secs(5), WallTime::from_unix_nanos(9_000));
        assert_eq!(SteadyTime::default().read(now, wall, 1_000, false), 1_000);
        assert_eq!(SteadyTime::default().read(now, wall, 1_000, true), 9_000);
        let mut time = SteadyTime::default();
        time.read(now, wall, 1_000, false);
        assert_eq!(time.read(now + Duration::from_nanos(7), wall, 1_000, false), 1_007);
    }
}
