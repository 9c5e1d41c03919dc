/* filter_date.c - dates in HTTP fields (RFC 9110 section 5.6.7): written as IMF-fixdate, read in all three forms.
 *
 *     Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
 *     Sunday, 06-Nov-94 08:49:37 GMT    RFC 850
 *     Sun Nov  6 08:49:37 1994          asctime()
 *
 * The day of the week is not checked against the date: it says nothing that the date does not.
 */
#include "filter_int.h"

static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

/* Days from 1970-01-01 to a day of the Gregorian calendar; year >= 1. Years are counted from March, so that the leap day is the last. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year, m = month <= 2 ? month + 9 : month - 3;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static bool leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

static int64_t month_days(int64_t year, int64_t month)
{
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && leap(year));
}

static int64_t year_of(int64_t days)
{
    int64_t year = 1970 + days / 366; /* never too late; a few steps too early at most */
    while (days_from_date(year + 1, 1, 1) <= days)
        year++;
    return year;
}

static void digits(char *p, int n, int64_t v)
{
    while (n--) {
        p[n] = (char)('0' + v % 10);
        v /= 10;
    }
}

void http_date(uint64_t seconds, char out[HTTP_DATE_BYTES + 1])
{
    static const char names[7][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"};
    seconds = MIN(seconds, 253402300799u); /* the end of the year 9999 */
    int64_t days = (int64_t)(seconds / 86400), s = (int64_t)(seconds % 86400), year = year_of(days), month = 1;
    int64_t day = days - days_from_date(year, 1, 1);
    while (day >= month_days(year, month))
        day -= month_days(year, month++);
    memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", HTTP_DATE_BYTES + 1);
    memcpy(out, names[days % 7], 3);
    digits(out + 5, 2, day + 1);
    memcpy(out + 8, months[month - 1], 3);
    digits(out + 12, 4, year);
    digits(out + 17, 2, s / 3600);
    digits(out + 20, 2, s / 60 % 60);
    digits(out + 23, 2, s % 60);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------- */

struct date { int64_t year, month, day, hour, minute, second; };

/* n digits at at; space: the first may be one. */
static bool number(struct slice s, size_t at, int n, bool space, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        char c = s.p[at + (size_t)i];
        if (space && i == 0 && c == ' ')
            c = '0';
        if (c < '0' || c > '9')
            return false;
        *out = *out * 10 + (c - '0');
    }
    return true;
}

static bool month_name(struct slice s, size_t at, int64_t *out)
{
    for (int i = 0; i < 12; i++)
        if (memcmp(s.p + at, months[i], 3) == 0) {
            *out = i + 1;
            return true;
        }
    return false;
}

static bool clock_at(struct slice s, size_t at, struct date *d)
{
    return s.p[at + 2] == ':' && s.p[at + 5] == ':' && number(s, at, 2, false, &d->hour) && number(s, at + 3, 2, false, &d->minute) &&
           number(s, at + 6, 2, false, &d->second);
}

static bool read_fixdate(struct slice s, struct date *d)
{
    return s.n == HTTP_DATE_BYTES && s.p[3] == ',' && s.p[4] == ' ' && s.p[7] == ' ' && s.p[11] == ' ' && s.p[16] == ' ' && slice_ends(s, SLICE(" GMT")) &&
           number(s, 5, 2, false, &d->day) && month_name(s, 8, &d->month) && number(s, 12, 4, false, &d->year) && clock_at(s, 17, d);
}

static bool read_asctime(struct slice s, struct date *d)
{
    return s.n == 24 && s.p[3] == ' ' && s.p[7] == ' ' && s.p[10] == ' ' && s.p[19] == ' ' && month_name(s, 4, &d->month) && number(s, 8, 2, true, &d->day) &&
           clock_at(s, 11, d) && number(s, 20, 4, false, &d->year);
}

/* A year that seems more than 50 years ahead is the last past one with these digits. */
static bool read_rfc850(struct slice s, uint64_t now, struct date *d)
{
    ptrdiff_t comma = slice_find(s, ',');
    if (comma < 6 || comma > 9 || s.n != (size_t)comma + 24 || !slice_ends(s, SLICE(" GMT")))
        return false;
    s = slice_of(s.p + comma, s.n - (size_t)comma);
    if (s.p[1] != ' ' || s.p[4] != '-' || s.p[8] != '-' || s.p[11] != ' ' || !number(s, 2, 2, false, &d->day) || !month_name(s, 5, &d->month) ||
        !number(s, 9, 2, false, &d->year) || !clock_at(s, 12, d))
        return false;
    int64_t this_year = year_of((int64_t)(MIN(now, 253402300799u) / 86400));
    d->year += this_year / 100 * 100;
    if (d->year > this_year + 50)
        d->year -= 100;
    return true;
}

bool http_date_parse(struct slice s, uint64_t now, uint64_t *seconds)
{
    struct date d = {0};
    if (!read_fixdate(s, &d) && !read_rfc850(s, now, &d) && !read_asctime(s, &d))
        return false;
    if (d.year < 1970 || d.day < 1 || d.day > month_days(d.year, d.month) || d.hour > 23 || d.minute > 59 || d.second > 60)
        return false;
    int64_t days = days_from_date(d.year, d.month, d.day);
    *seconds = (uint64_t)(days * 86400 + d.hour * 3600 + d.minute * 60 + MIN(d.second, 59));
    return true;
}
