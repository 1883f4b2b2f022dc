/* See client_limits.h.  A bucket is one number, the time at which it will be full again (GCRA, ITU-T I.371: the "theoretical arrival time"): each
 * request moves it on by one interval, and is refused when it would be further ahead than a burst reaches.  An entry whose time has
 * passed is a full bucket for whatever rate, so an entry need not be cleared for its next owner.
 *
 * An entry's other word has its owner's tag and the number of its holders.  Every use takes a hold first, by compare and exchange of
 * the whole word: what is held cannot change its owner, and only what nobody holds, with its bucket full, may be taken over. */
#include "policy/client_limits.h"

#include "base/prefix.h"
#include "base/siphash.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#define N_WAYS 8u           /* entries that one owner may have: a probe's bound, half a cache line each side */
#define N_LOOKS 64u         /* each that fails means that another thread got on */
#define N_CLIENT_SETS 8192u /* 65536 clients at a time, 1 MiB */
#define N_TOTAL_SETS 2048u  /* 16384 scopes at a time, 256 KiB */
#define HOLDERS_BITS 24u    /* 16 million at a time; traffic_server has fewer connections */
#define HOLDERS_MASK ((UINT64_C(1) << HOLDERS_BITS) - 1u)
#define SECOND_NS UINT64_C(1000000000)
#define RATE_NS (UINT64_C(1000) * SECOND_NS) /* what rates are given for: 1000 s */
#define REACH_MAX_NS (UINT64_C(1) << 60)     /* 36 years: sums of times stay in 64 bits */

struct entry {
  _Atomic uint64_t owner;   /* tag << HOLDERS_BITS | holders; tag 0: never had one */
  _Atomic uint64_t full_ns; /* when its bucket is full again */
};

static struct entry clients[N_CLIENT_SETS * N_WAYS], totals[N_TOTAL_SETS * N_WAYS];
static struct atsk_siphash_key key; /* written once, before the first request */

struct table {
  struct entry *entries;
  uint32_t n_sets; /* a power of two */
};

static const struct table client_table = {clients, N_CLIENT_SETS};
static const struct table total_table  = {totals, N_TOTAL_SETS};

enum atsk_status
atsk_limits_init(void)
{
  return getrandom(&key, sizeof key, 0) == (ssize_t)sizeof key ? ATSK_OK : ATSK_E_STATE;
}

/* --- entries ------------------------------------------------------------------------------------------------------------------ */

/* Takes one more hold of an entry that has the owner.  False: it has not, or `most` hold it already (*is_crowded). */
static bool
entry_hold(struct entry *entry, uint64_t tag, uint64_t most, bool *is_crowded)
{
  /* relaxed, all through: a count orders nothing, and nothing but these two words is ever read through it */
  uint64_t word = atomic_load_explicit(&entry->owner, memory_order_relaxed);
  while (word >> HOLDERS_BITS == tag) {
    if ((word & HOLDERS_MASK) >= most) {
      *is_crowded = true;
      return false;
    }
    if (atomic_compare_exchange_weak_explicit(&entry->owner, &word, word + 1u, memory_order_acquire, memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

enum claim {
  CLAIM_BUSY  = 0, /* somebody needs the entry */
  CLAIM_DONE  = 1,
  CLAIM_RACED = 2, /* it has changed meanwhile: its owner may be the one that was looked for */
};

/* Makes an entry that nobody needs the owner's, held once.  (Should the former owner come and go between the two looks, the new one has
 * that request's token less: once, for one interval.) */
static enum claim
entry_claim(struct entry *entry, uint64_t tag, uint64_t now_ns)
{
  uint64_t word = atomic_load_explicit(&entry->owner, memory_order_relaxed);
  if ((word & HOLDERS_MASK) != 0 || atomic_load_explicit(&entry->full_ns, memory_order_relaxed) > now_ns) {
    return CLAIM_BUSY;
  }
  /* seq_cst: of two that claim an entry each for one owner, one at least sees the other's.  Pairs with: is_claimed_twice(). */
  return atomic_compare_exchange_strong_explicit(&entry->owner, &word, tag << HOLDERS_BITS | 1u, memory_order_seq_cst,
                                                 memory_order_relaxed)
           ? CLAIM_DONE
           : CLAIM_RACED;
}

/* Has another entry of the set the owner, too? */
static bool
is_claimed_twice(struct entry *first, const struct entry *mine, uint64_t tag)
{
  for (uint32_t i = 0; i < N_WAYS; i++) {
    /* seq_cst.  Pairs with: entry_claim(). */
    if (&first[i] != mine && atomic_load_explicit(&first[i].owner, memory_order_seq_cst) >> HOLDERS_BITS == tag) {
      return true;
    }
  }
  return false;
}

/* Gives a claim back as if it had never been.  False: others hold the entry already. */
static bool
entry_disclaim(struct entry *entry, uint64_t tag)
{
  uint64_t word = tag << HOLDERS_BITS | 1u;
  return atomic_compare_exchange_strong_explicit(&entry->owner, &word, 0, memory_order_seq_cst, memory_order_relaxed);
}

static void
entry_let_go(struct entry *entry)
{
  /* release: the bucket's time before the end of the hold.  Pairs with: entry_hold and entry_claim, after which it is read. */
  (void)atomic_fetch_sub_explicit(&entry->owner, 1u, memory_order_release);
}

/* One look for the owner's entry, or for one that can become it.  False: others were faster, look again. */
static bool
entry_look(struct entry *first, uint64_t tag, uint64_t most, uint64_t now_ns, bool *is_crowded, struct entry **out)
{
  *out = NULL;
  for (uint32_t i = 0; i < N_WAYS; i++) {
    if (entry_hold(&first[i], tag, most, is_crowded)) {
      *out = &first[i];
      return true;
    }
    if (*is_crowded) {
      return true;
    }
  }
  for (uint32_t i = 0; i < N_WAYS; i++) {
    switch (entry_claim(&first[i], tag, now_ns)) {
    case CLAIM_DONE:
      *out = &first[i];
      return !is_claimed_twice(first, *out, tag) || !entry_disclaim(*out, tag);
    case CLAIM_RACED:
      return false;
    case CLAIM_BUSY:
    default:
      break;
    }
  }
  return true;
}

/* The owner's entry, with a hold on it.  NULL: *is_crowded, or there is no room for it. */
static struct entry *
entry_find(const struct table *table, uint64_t hash, uint64_t most, uint64_t now_ns, bool *is_crowded)
{
  const uint64_t tag  = hash >> HOLDERS_BITS != 0 ? hash >> HOLDERS_BITS : 1u;
  struct entry *first = table->entries + (hash & (table->n_sets - 1u)) * N_WAYS;
  struct entry *found = NULL;
  for (uint32_t i = 0; i < N_LOOKS; i++) {
    if (entry_look(first, tag, most, now_ns, is_crowded, &found)) {
      return found;
    }
  }
  return NULL;
}

/* --- buckets ------------------------------------------------------------------------------------------------------------------ */

static uint64_t
interval_ns(uint32_t rate_milli)
{
  return RATE_NS / rate_milli;
}

/* Takes a token.  False: there is none, and *wait_ns until there is. */
static bool
bucket_take(struct entry *entry, uint32_t rate_milli, uint32_t burst, uint64_t now_ns, uint64_t *wait_ns)
{
  const uint64_t interval = interval_ns(rate_milli);
  const uint64_t ahead    = burst > 0 ? burst - 1u : 0u;
  const uint64_t reach    = ahead > REACH_MAX_NS / interval ? REACH_MAX_NS : interval * ahead;
  uint64_t full           = atomic_load_explicit(&entry->full_ns, memory_order_relaxed);
  for (;;) {
    const uint64_t from = full > now_ns ? full : now_ns;
    if (from - now_ns > reach) {
      *wait_ns = from - now_ns - reach;
      return false;
    }
    if (atomic_compare_exchange_weak_explicit(&entry->full_ns, &full, from + interval, memory_order_relaxed,
                                              memory_order_relaxed)) {
      return true;
    }
  }
}

static void
bucket_give_back(struct entry *entry, uint32_t rate_milli)
{
  (void)atomic_fetch_sub_explicit(&entry->full_ns, interval_ns(rate_milli), memory_order_relaxed);
}

/* --- requests ----------------------------------------------------------------------------------------------------------------- */

/* One of the two kinds of limits. */
struct bound {
  const struct table *table;
  uint64_t hash;
  uint32_t rate_milli, burst, concurrency;
  enum atsk_limits_verdict over_rate, over_concurrency;
};

static uint32_t
seconds_of(uint64_t ns)
{
  const uint64_t seconds = ns / SECOND_NS + (ns % SECOND_NS != 0 ? 1u : 0u);
  return seconds == 0 ? 1u : seconds < UINT32_MAX ? (uint32_t)seconds : UINT32_MAX;
}

/* The entry held, or NULL: refused (result->verdict), or not counted. */
static struct entry *
bound_take(const struct bound *bound, uint64_t now_ns, struct atsk_limits_result *result)
{
  bool is_crowded     = false;
  uint64_t wait_ns    = 0;
  const uint64_t most = bound->concurrency != 0 && bound->concurrency < HOLDERS_MASK ? bound->concurrency : HOLDERS_MASK;
  struct entry *entry = entry_find(bound->table, bound->hash, most, now_ns, &is_crowded);
  if (entry == NULL) {
    result->verdict       = is_crowded ? bound->over_concurrency : ATSK_LIMITS_ALLOWED;
    result->retry_after_s = 1;
    result->is_uncounted |= !is_crowded;
    return NULL;
  }
  if (bound->rate_milli != 0 && !bucket_take(entry, bound->rate_milli, bound->burst, now_ns, &wait_ns)) {
    entry_let_go(entry);
    result->verdict       = bound->over_rate;
    result->retry_after_s = seconds_of(wait_ns);
    return NULL;
  }
  return entry;
}

/* What an address is counted as: an IPv6 client has a /64 at least. */
static uint64_t
client_hash(uint64_t scope, const struct atsk_client *client)
{
  char bytes[sizeof scope + 1u + 8u];
  const size_t len = client->family == ATSK_FAMILY_IPV4 ? 4u : client->family == ATSK_FAMILY_IPV6 ? 8u : 0u;
  memcpy(bytes, &scope, sizeof scope);
  bytes[sizeof scope] = (char)client->family;
  memcpy(bytes + sizeof scope + 1u, client->addr, len);
  return atsk_siphash(&key, bytes, sizeof scope + 1u + len);
}

bool
atsk_limits_is_exempt(struct atsk_span networks, const struct atsk_client *client)
{
  for (size_t at = 0; networks.len - at >= ATSK_EXEMPT_SIZE; at += ATSK_EXEMPT_SIZE) {
    const uint8_t *network = networks.ptr + at;
    if (network[16] == client->family && atsk_prefix_is(client->addr, network, network[17])) {
      return true;
    }
  }
  return false;
}

static uint32_t
number_of(const struct table *table, const struct entry *entry)
{
  return entry == NULL ? 0 : (uint32_t)(entry - table->entries) + 1u;
}

/* A hold on an entry that only has a rate ends at once: the bucket keeps the entry. */
static struct entry *
kept(struct entry *entry, uint32_t concurrency)
{
  if (entry != NULL && concurrency == 0) {
    entry_let_go(entry);
    return NULL;
  }
  return entry;
}

void
atsk_limits_take(const struct atsk_limits_request *request, struct atsk_limits_hold *hold, struct atsk_limits_result *result)
{
  const struct atsk_policy_limits *limits = request->limits;
  struct entry *client                    = NULL;
  struct entry *total                     = NULL;
  memset(result, 0, sizeof *result);
  const bool has_client = (limits->client_rate_milli != 0 || limits->client_concurrency != 0) &&
                          !atsk_limits_is_exempt(request->exempt, &request->client);
  if (has_client) {
    const struct bound bound = {&client_table,
                                client_hash(request->scope, &request->client),
                                limits->client_rate_milli,
                                limits->client_burst,
                                limits->client_concurrency,
                                ATSK_LIMITS_CLIENT_RATE,
                                ATSK_LIMITS_CLIENT_CONCURRENCY};
    client                   = bound_take(&bound, request->now_ns, result);
    if (result->verdict != ATSK_LIMITS_ALLOWED) {
      return;
    }
  }
  if (limits->total_rate_milli != 0 || limits->total_concurrency != 0) {
    const struct bound bound = {&total_table,
                                atsk_siphash(&key, (const char *)&request->scope, sizeof request->scope),
                                limits->total_rate_milli,
                                limits->total_burst,
                                limits->total_concurrency,
                                ATSK_LIMITS_TOTAL_RATE,
                                ATSK_LIMITS_TOTAL_CONCURRENCY};
    total                    = bound_take(&bound, request->now_ns, result);
    if (result->verdict != ATSK_LIMITS_ALLOWED) {
      if (client != NULL) { /* refused for others' sake: it costs the client nothing */
        if (limits->client_rate_milli != 0) {
          bucket_give_back(client, limits->client_rate_milli);
        }
        entry_let_go(client);
      }
      return;
    }
  }
  hold->client = number_of(&client_table, kept(client, limits->client_concurrency));
  hold->total  = number_of(&total_table, kept(total, limits->total_concurrency));
}

void
atsk_limits_release(struct atsk_limits_hold *hold)
{
  if (hold->client != 0) {
    entry_let_go(&clients[hold->client - 1u]);
    hold->client = 0;
  }
  if (hold->total != 0) {
    entry_let_go(&totals[hold->total - 1u]);
    hold->total = 0;
  }
}
