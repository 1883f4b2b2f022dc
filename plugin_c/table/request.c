/* Host and path normalisation.  Any thread; no state, no allocation.  RFC 3986 sections 3.2.2, 5.2.4 and 6.2.2; RFC 1035
 * section 2.3.4.  What each odd byte deserves is said at the line that decides it. */
#include "table/request.h"

#include <stdbool.h>
#include <string.h>

/* The longest authority that can be right: a full host name, its trailing dot, and ":65535". */
#define AUTHORITY_MAX (ATSK_HOST_MAX + 1u + 6u)
#define IPV6_TEXT_MAX 45u /* "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255" */

/* A host byte's folded form; 0: no host name has it.  Underscores are not host names by RFC 1123, but are in use. */
static const char host_byte[256] = {
  ['-'] = '-', ['.'] = '.', ['_'] = '_', ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6',
  ['7'] = '7', ['8'] = '8', ['9'] = '9', ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd', ['e'] = 'e', ['f'] = 'f', ['g'] = 'g',
  ['h'] = 'h', ['i'] = 'i', ['j'] = 'j', ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o', ['p'] = 'p', ['q'] = 'q',
  ['r'] = 'r', ['s'] = 's', ['t'] = 't', ['u'] = 'u', ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z', ['A'] = 'a',
  ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e', ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k',
  ['L'] = 'l', ['M'] = 'm', ['N'] = 'n', ['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't', ['U'] = 'u',
  ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z',
};

/* What a path byte asks for.  A raw byte >= 0x80 is no URL (RFC 3986 section 2), and yet sent; servers take it for its escape, so it must
 * not be a second spelling.  '\' is data. */
enum path_class { PATH_PLAIN = 0, PATH_SLASH, PATH_ESCAPE, PATH_HIGH, PATH_BAD };

static const unsigned char path_class[256] = {
  [0x00 ... 0x20] = PATH_BAD,  ['%'] = PATH_ESCAPE, ['/'] = PATH_SLASH, [0x7f] = PATH_BAD, /* the ranges are GNU C: gcc and clang */
  [0x80 ... 0xff] = PATH_HIGH,
};

static int
hex_value(unsigned char c)
{
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that the escape at s[0..2] stands for; -1: not an escape, or "%00", which every C string after us would cut at. */
static int
escape_value(const char *s, size_t left)
{
  if (left < 3) {
    return -1;
  }
  int high  = hex_value((unsigned char)s[1]);
  int low   = hex_value((unsigned char)s[2]);
  int value = high < 0 || low < 0 ? -1 : high * 16 + low;
  return value == 0 ? -1 : value;
}

/* RFC 3986 section 2.3. */
static bool
is_unreserved(int c)
{
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

static char
hex_digit(unsigned value)
{
  return "0123456789ABCDEF"[value & 15u];
}

/* `digits`: what follows the colon.  RFC 3986 allows none at all. */
static bool
port_parse(const char *digits, size_t n, uint16_t *out)
{
  uint32_t port = 0;
  for (size_t i = 0; i < n; i++) {
    if (digits[i] < '0' || digits[i] > '9') {
      return false;
    }
    port = port * 10u + (uint32_t)(digits[i] - '0');
    if (port > UINT16_MAX) {
      return false;
    }
  }
  *out = (uint16_t)port;
  return true;
}

/* "[...]" with what may stand in an IPv6 address.  Shallow: the name is only compared, never connected to.  Zone ids and IPvFuture
 * (RFC 6874, RFC 3986) name nothing that a table could hold. */
static enum atsk_request_fault
literal_normalise(struct atsk_str authority, struct atsk_host *out)
{
  size_t n_colons = 0;
  size_t i        = 1;
  for (; i < authority.len && authority.ptr[i] != ']'; i++) {
    unsigned char c = (unsigned char)authority.ptr[i];
    if (i > IPV6_TEXT_MAX || (hex_value(c) < 0 && c != ':' && c != '.')) {
      return ATSK_REQUEST_BAD_HOST;
    }
    n_colons += c == ':';
    out->bytes[i] = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : (char)c;
  }
  if (i == authority.len || n_colons < 2) {
    return ATSK_REQUEST_BAD_HOST;
  }
  out->bytes[0] = '[';
  out->bytes[i] = ']';
  size_t end    = i + 1;
  out->len      = (uint16_t)end;
  out->port     = 0;
  if (end < authority.len &&
      (authority.ptr[end] != ':' || !port_parse(authority.ptr + end + 1, authority.len - end - 1, &out->port))) {
    return ATSK_REQUEST_BAD_HOST;
  }
  out->bytes[end] = '\0';
  return ATSK_REQUEST_FINE;
}

enum atsk_request_fault
atsk_host_normalise(struct atsk_str authority, struct atsk_host *out)
{
  if (authority.len == 0 || authority.len > AUTHORITY_MAX) {
    return ATSK_REQUEST_BAD_HOST;
  }
  if (authority.ptr[0] == '[') {
    return literal_normalise(authority, out);
  }
  size_t label = 0; /* bytes of the label so far */
  size_t i     = 0;
  out->port    = 0;
  for (; i < authority.len; i++) {
    char c = host_byte[(unsigned char)authority.ptr[i]];
    if (c == '\0') { /* '@' of a userinfo too: it has no place in Host, and hides the real host from whoever reads the URL */
      if (authority.ptr[i] == ':' && port_parse(authority.ptr + i + 1, authority.len - i - 1, &out->port)) {
        break;
      }
      return ATSK_REQUEST_BAD_HOST;
    }
    if (i > ATSK_HOST_MAX) {
      return ATSK_REQUEST_BAD_HOST;
    }
    out->bytes[i] = c;
    if (c == '.') {
      if (label == 0) {
        return ATSK_REQUEST_BAD_HOST;
      }
      label = 0;
    } else if (++label > ATSK_LABEL_MAX) {
      return ATSK_REQUEST_BAD_HOST;
    }
  }
  size_t len = i > 0 && label == 0 ? i - 1 : i; /* without the trailing dot; a second one was an empty label */
  if (len == 0 || len > ATSK_HOST_MAX) {
    return ATSK_REQUEST_BAD_HOST;
  }
  out->bytes[len] = '\0';
  out->len        = (uint16_t)len;
  return ATSK_REQUEST_FINE;
}

/* Whether the segment that starts at s is "." or "..", as written. */
static bool
is_dots(const char *s, const char *end)
{
  size_t left = (size_t)(end - s);
  if (left == 0 || s[0] != '.') {
    return false;
  }
  if (left == 1 || s[1] == '/') {
    return true;
  }
  return s[1] == '.' && (left == 2 || s[2] == '/');
}

/* Bytes of `path` that are in normal form already; all of it, in the usual case. */
static size_t
normal_prefix(struct atsk_str path)
{
  const char *end = path.ptr + path.len;
  for (const char *s = path.ptr; s < end; s++) {
    switch (path_class[(unsigned char)*s]) {
    case PATH_PLAIN:
      break;
    case PATH_SLASH:
      if (s + 1 < end && (s[1] == '/' || is_dots(s + 1, end))) {
        return (size_t)(s - path.ptr);
      }
      break;
    case PATH_ESCAPE: {
      int value = escape_value(s, (size_t)(end - s));
      if (value < 0 || is_unreserved(value) || (s[1] >= 'a' && s[1] <= 'f') || (s[2] >= 'a' && s[2] <= 'f')) {
        return (size_t)(s - path.ptr);
      }
      break;
    }
    default:
      return (size_t)(s - path.ptr);
    }
  }
  return path.len;
}

/* Bytes that are written as an escape, and so take two more. */
static size_t
high_bytes(struct atsk_str path)
{
  size_t n = 0;
  for (size_t i = 0; i < path.len; i++) {
    n += (unsigned char)path.ptr[i] >= 0x80;
  }
  return n;
}

/* Ends the segment room[segment..len): where the next one starts, or 0 for ".." above the root.  Duplicate slashes are collapsed
 * before ".." is resolved, as file systems and other proxies do: "/a//../b" is "/b". */
static size_t
segment_end(const char *room, size_t segment, size_t len)
{
  size_t n = len - segment;
  if (n == 1 && room[segment] == '.') {
    return segment;
  }
  if (n == 2 && room[segment] == '.' && room[segment + 1] == '.') {
    if (segment == 1) {
      return 0;
    }
    size_t before = segment - 1;
    while (room[before - 1] != '/') {
      before--;
    }
    return before;
  }
  return len;
}

enum atsk_request_fault
atsk_path_normalise(struct atsk_str path, char *room, struct atsk_str *out)
{
  if (path.len > ATSK_PATH_MAX) {
    return ATSK_REQUEST_LONG_PATH;
  }
  if (path.len == 0) { /* RFC 3986 section 6.2.3: the empty path of an http URL is "/" */
    *out = (struct atsk_str){"/", 1};
    return ATSK_REQUEST_FINE;
  }
  if (path.ptr[0] != '/') {
    return ATSK_REQUEST_BAD_PATH;
  }
  if (normal_prefix(path) == path.len) {
    *out = path;
    return ATSK_REQUEST_FINE;
  }
  if (high_bytes(path) > (ATSK_PATH_MAX - path.len) / 2) {
    return ATSK_REQUEST_LONG_PATH;
  }
  size_t len     = 1; /* never more than bytes read and two for each high one: every step writes at most that */
  size_t segment = 1; /* where the segment under way starts */
  room[0]        = '/';
  for (size_t i = 1; i < path.len; i++) {
    unsigned char c = (unsigned char)path.ptr[i];
    switch (path_class[c]) {
    case PATH_PLAIN:
      room[len++] = (char)c;
      break;
    case PATH_SLASH: {
      size_t end = segment_end(room, segment, len);
      if (end == 0) {
        return ATSK_REQUEST_BAD_PATH;
      }
      len = end;
      if (room[len - 1] != '/') {
        room[len++] = '/';
      }
      segment = len;
      break;
    }
    case PATH_ESCAPE: {
      int value = escape_value(path.ptr + i, path.len - i);
      if (value < 0) {
        return ATSK_REQUEST_BAD_PATH;
      }
      if (is_unreserved(value)) { /* before dots are looked for: "%2e%2e" is ".." */
        room[len++] = (char)value;
      } else { /* a "%2F" stays inside its segment */
        room[len++] = '%';
        room[len++] = hex_digit((unsigned)value >> 4);
        room[len++] = hex_digit((unsigned)value);
      }
      i += 2;
      break;
    }
    case PATH_HIGH:
      room[len++] = '%';
      room[len++] = hex_digit(c >> 4);
      room[len++] = hex_digit(c);
      break;
    default:
      return ATSK_REQUEST_BAD_PATH;
    }
  }
  size_t end = segment_end(room, segment, len);
  if (end == 0) {
    return ATSK_REQUEST_BAD_PATH;
  }
  *out = (struct atsk_str){room, end};
  return ATSK_REQUEST_FINE;
}
