/* Who a request comes from: the peer, or, where the peer is a trusted proxy, whom it names.  For limits and hashing by address. */
#ifndef ATSK_CLIENT_H
#define ATSK_CLIENT_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "controller/controller.h"
#include "policy/client_limits.h"

struct sockaddr;

ATSK_BEGIN_DECLS

/* The address of a peer; an IPv4 address in IPv6's clothes is IPv4.  NULL or another family: unknown. */
void atsk_client_of_peer(const struct sockaddr *peer, struct atsk_client *out);

/* Does --trusted-proxies name it? */
bool atsk_client_is_trusted(const struct atsk_settings *settings, const struct atsk_client *client);

/* Goes back one X-Forwarded-For value, right to left, from `client`, who sent it: as long as the client is trusted it becomes whom the value
 * names before.  True: all of the value was passed, and its first entry is trusted too, so that a field before this one counts.
 * What is no address (a name, "unknown", RFC 7239's "_hidden") ends the walk at whoever said so. */
bool atsk_client_of_forwarded(const struct atsk_settings *settings, struct atsk_str value, struct atsk_client *client);

ATSK_END_DECLS
#endif
