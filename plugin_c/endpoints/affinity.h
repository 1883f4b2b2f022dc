/* Session affinity by cookie: an endpoint's opaque tag, its text, and the cookie in a request's header.  A tag is a keyed hash
 * (SipHash-2-4, 128-bit key) of the endpoint's address, so that it tells a client no address, and a client cannot make one up for an
 * endpoint of its choice.  Two proxies with one key understand each other's tags; so does one that was started again.
 * No TS API, no allocation. */
#ifndef ATSK_AFFINITY_H
#define ATSK_AFFINITY_H

#include "base/atsk_base.h"

#include <stdbool.h>

ATSK_BEGIN_DECLS

#define ATSK_AFFINITY_KEY 16u /* bytes */
#define ATSK_TAG_TEXT 16u     /* bytes of a tag as text: hexadecimal digits, lower case */

/* Sets the key, once, before the first endpoint set is made (the last good state's are).  Without, a random one is taken then. */
void atsk_affinity_key_set(const uint8_t key[ATSK_AFFINITY_KEY]);

/* The tag of an endpoint; `addr`: 16 bytes, as in its record; `name`: of an ExternalName, else empty.  0: there is no key, and none could
 * be had (getrandom); then nobody has affinity.  The writer's thread. */
uint64_t atsk_affinity_tag(const uint8_t addr[16], uint8_t family, uint16_t port, struct atsk_str name);

void atsk_tag_write(uint64_t tag, char out[ATSK_TAG_TEXT]); /* not NUL-terminated */
uint64_t atsk_tag_read(struct atsk_str text);               /* 0: not the text of a tag */

/* The value of the first cookie called `name` in one Cookie field's value (RFC 6265 section 5.4), borrowed from it; without blanks
 * around it, nor quotes.  False: there is none.  Linear in the field, whatever it holds. */
bool atsk_cookie_find(struct atsk_str field, struct atsk_str name, struct atsk_str *value);

ATSK_END_DECLS
#endif
