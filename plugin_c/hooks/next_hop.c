/* See next_hop.h. */
#include "hooks/next_hop.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define URL_LITERAL_MAX 52u          /* a literal in brackets */
#define NAME_PLACEHOLDER "192.0.2.1" /* RFC 5737: leads nowhere, should ATS ever connect to the URL's host itself */

static char *
octet_write(char *out, uint8_t octet)
{
  if (octet >= 100) {
    *out++ = (char)('0' + octet / 100);
  }
  if (octet >= 10) {
    *out++ = (char)('0' + octet / 10 % 10);
  }
  *out++ = (char)('0' + octet % 10);
  return out;
}

/* inet_ntop takes ten times as long for IPv4, and this runs for every request. */
static size_t
address_write(const struct atsk_endpoint_address *address, char *out)
{
  if (address->family == ATSK_FAMILY_IPV6) {
    (void)inet_ntop(AF_INET6, address->addr, out, ATSK_LITERAL_MAX);
    return strlen(out);
  }
  char *end = out;
  for (int i = 0; i < 4; i++) {
    if (i > 0) {
      *end++ = '.';
    }
    end = octet_write(end, address->addr[i]);
  }
  *end = '\0';
  return (size_t)(end - out);
}

/* The address that ATS's look-up of the action's literal would give: with it there is none.  A literal that HostDB has not met costs a
 * 20 ms retry otherwise (HostDBProcessor::getby, MUTEX_RETRY_DELAY), so the first request to every new pod.  The look-up comes
 * before the hook that calls this for the attempt after it (HttpSM, SM_ACTION_DNS_LOOKUP; HttpTransact::PPDNSLookupAPICall). */
static void
server_address_set(TSHttpTxn txnp, const struct atsk_endpoint_address *address)
{
  if (address->family == ATSK_FAMILY_IPV6) {
    struct sockaddr_in6 to;
    memset(&to, 0, sizeof to);
    to.sin6_family = AF_INET6;
    to.sin6_port   = htons(address->port);
    memcpy(&to.sin6_addr, address->addr, sizeof to.sin6_addr);
    (void)TSHttpTxnServerAddrSet(txnp, (const struct sockaddr *)&to);
  } else {
    struct sockaddr_in to;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port   = htons(address->port);
    memcpy(&to.sin_addr, address->addr, sizeof to.sin_addr);
    (void)TSHttpTxnServerAddrSet(txnp, (const struct sockaddr *)&to);
  }
}

void
atsk_next_hop_set(TSHttpTxn txnp, struct atsk_next_hop *hop, const struct atsk_pick *pick, uint32_t choice, bool after_answer)
{
  struct atsk_endpoint_address address;
  TSResponseAction action;
  memset(&action, 0, sizeof action);
  atsk_pick_address(pick, choice, &address);
  if (hop->is_name) {
    action.hostname     = hop->to.name;
    action.hostname_len = strlen(hop->to.name);
  } else {
    action.hostname     = hop->to.literal[choice];
    action.hostname_len = address_write(&address, hop->to.literal[choice]);
  }
  action.port                = address.port;
  action.nextHopExists       = true;
  action.responseIsRetryable = after_answer;
  TSHttpTxnResponseActionSet(txnp, &action);
  if (!hop->is_name) {
    server_address_set(txnp, &address);
  }
}

void
atsk_next_hop_none(TSHttpTxn txnp, struct atsk_next_hop *hop)
{
  TSResponseAction action;
  memset(&action, 0, sizeof action);
  action.hostname      = hop->is_name ? hop->to.name : hop->to.literal[0]; /* ATS prints it; never connects to it */
  action.hostname_len  = strlen(action.hostname);
  action.nextHopExists = true;
  action.fail          = true;
  TSHttpTxnResponseActionSet(txnp, &action);
}

/* ATS connects to what the action says; the URL only shows it. */
static void
url_rewrite(TSRemapRequestInfo *rri, const struct atsk_next_hop *hop, uint16_t port)
{
  char bracketed[URL_LITERAL_MAX];
  const char *host = hop->is_name ? NAME_PLACEHOLDER : hop->to.literal[0];
  if (strcmp(host, "127.0.0.1") == 0) {
    host = "127.0.0.2"; /* that very text makes ATS ignore the action (HttpTransact.cc, is_localhost) */
  } else if (strchr(host, ':') != NULL) {
    (void)snprintf(bracketed, sizeof bracketed, "[%s]", host);
    host = bracketed;
  }
  int scheme_len     = 0;
  const bool is_ws   = hop->is_websocket;
  const char *wanted = is_ws ? TS_URL_SCHEME_WS : TS_URL_SCHEME_HTTP; /* ATS makes http of ws later, and logs an error without it */
  const char *present = TSUrlSchemeGet(rri->requestBufp, rri->requestUrl, &scheme_len);
  if (present != wanted) {
    (void)TSUrlSchemeSet(rri->requestBufp, rri->requestUrl, wanted, is_ws ? TS_URL_LEN_WS : TS_URL_LEN_HTTP);
  }
  (void)TSUrlHostSet(rri->requestBufp, rri->requestUrl, host, (int)strlen(host));
  (void)TSUrlPortSet(rri->requestBufp, rri->requestUrl, port);
}

void
atsk_next_hop_begin(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_pick *pick, struct atsk_next_hop *hop)
{
  struct atsk_endpoint_address first;
  atsk_pick_address(pick, 0, &first);
  hop->is_name      = first.family == 0;
  hop->is_websocket = TSHttpTxnIsWebsocket(txnp) != 0;
  if (hop->is_name) {
    size_t len = first.name.len < ATSK_HOST_MAX ? first.name.len : ATSK_HOST_MAX;
    memcpy(hop->to.name, first.name.ptr, len);
    hop->to.name[len] = '\0';
  }
  atsk_next_hop_set(txnp, hop, pick, 0, false);
  url_rewrite(rri, hop, first.port);
}

static bool
ipv4_is_refused(const uint8_t *a, bool allow_loopback)
{
  return a[0] == 0 || (a[0] == 127 && !allow_loopback) || (a[0] == 169 && a[1] == 254) || a[0] >= 224;
}

static bool
address_is_refused(const struct sockaddr *to, bool allow_loopback)
{
  if (to == NULL || (to->sa_family != AF_INET && to->sa_family != AF_INET6)) {
    return true;
  }
  if (to->sa_family == AF_INET) {
    return ipv4_is_refused((const uint8_t *)&((const struct sockaddr_in *)to)->sin_addr, allow_loopback);
  }
  const struct in6_addr *a = &((const struct sockaddr_in6 *)to)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(a)) {
    return ipv4_is_refused(a->s6_addr + 12, allow_loopback);
  }
  return IN6_IS_ADDR_UNSPECIFIED(a) || (IN6_IS_ADDR_LOOPBACK(a) && !allow_loopback) || IN6_IS_ADDR_LINKLOCAL(a) ||
         IN6_IS_ADDR_MULTICAST(a);
}

bool
atsk_next_hop_is_refused(TSHttpTxn txnp, const struct atsk_next_hop *hop, bool allow_loopback)
{
  return hop->is_name && address_is_refused(TSHttpTxnNextHopAddrGet(txnp), allow_loopback);
}
