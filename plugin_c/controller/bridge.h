/* Every function that Python may call and every callback that C may make.  Plain C without #if or #include: cffi reads this file
 * as it is (atsk8s/bridge is its only Python reader).  Statuses are enum atsk_status of atsk_base.h; pointers are borrowed for the
 * call.  The commit calls belong to the controller's thread; the others may come from any Python thread. */

/* --- commits: publish.h tells what each does ------------------------------------------------------------------------------ */
int atsk_py_commit_begin(void);
int atsk_py_commit_service(uint64_t id, const uint8_t *records, size_t records_len, uint32_t max_failures);
int atsk_py_commit_service_name(uint64_t id, const char *name, size_t name_len, uint16_t port, uint32_t max_failures);
int atsk_py_commit_service_drop(uint64_t id);
int atsk_py_commit_certificate(uint64_t id, const uint8_t *chain, size_t chain_len, const uint8_t *key, size_t key_len);
int atsk_py_commit_certificate_empty(uint64_t id);
int atsk_py_commit_certificate_drop(uint64_t id);
int atsk_py_commit_vhost(uint16_t local_port, int place, const char *host, size_t host_len, const uint8_t *blob, size_t blob_len,
                         const uint64_t *services, uint32_t n_services, const uint64_t *routes, uint32_t n_routes);
int atsk_py_commit_vhost_drop(uint16_t local_port, int place, const char *host, size_t host_len);
int atsk_py_commit_tls(uint16_t local_port, int place, const char *host, size_t host_len, const uint64_t *certificates,
                       uint32_t n_certificates);
int atsk_py_commit_tls_drop(uint16_t local_port, int place, const char *host, size_t host_len);
int atsk_py_commit_publish(uint64_t *version);
void atsk_py_commit_abort(void);

/* In the first commit that is to be published, after everything else: drops what a last good state left and the commit did not replace. */
int atsk_py_commit_take_over(void);

/* --- the last good state: state.h ------------------------------------------------------------------------------------------ */

/* 1: the table published at start came from the file, as this version, written at this Unix time [s]. */
int atsk_py_state_loaded(uint64_t *version, uint64_t *written_s);

struct atsk_py_saved {
  uint64_t version;    /* of the table written */
  uint64_t size_bytes; /* of the file */
  char why[512];       /* what failed, NUL-terminated */
};
/* Writes the published table to DIR/table.state (`dir` NUL-terminated).  Any thread; may take seconds, and holds nothing up. */
int atsk_py_state_save(const char *dir, int with_certificates, uint64_t now_s, struct atsk_py_saved *out);

/* --- asking the published table, for explain and tests --------------------------------------------------------------------- */

struct atsk_py_decision {
  int kind;            /* enum atsk_match_kind, or 100 + enum atsk_request_fault */
  uint64_t version;    /* of the table asked; 0: none was published */
  uint32_t rule;       /* index in the virtual host's blob, when kind is ATSK_MATCH_RULE */
  uint64_t service_id; /* of the rule's first backend; 0: none */
  char object[512];    /* "namespace/name", NUL-terminated, cut if longer */
  char path[512];      /* the rule's path as written, likewise */
};
void atsk_py_decide(uint16_t local_port, const char *authority, size_t authority_len, const char *path, size_t path_len,
                    struct atsk_py_decision *out);

struct atsk_py_endpoint {
  uint64_t service_id;
  uint8_t addr[16]; /* network order; IPv4 in the first 4 */
  uint16_t port;
  uint8_t family; /* 4 or 6; 0: an ExternalName's */
  uint8_t flags;  /* enum atsk_endpoint_flags */
  uint32_t weight;
  uint32_t is_eligible; /* 1: gets new requests; 0: draining */
  uint32_t in_flight;
  uint32_t failures_in_row; /* since its last success */
  uint64_t failures;        /* ever */
  uint64_t ejected_ms;      /* it is left out for so much longer; 0: it is not */
  uint64_t probed_ms;       /* an active check has it left out for so much longer; 0: none has */
};
/* The endpoints, with their health, of every service that the rule for a request leads to.  Writes at most `room` of them to `out`, returns
 * how many there are; none, if atsk_py_decide() finds no rule. */
uint32_t atsk_py_endpoints(uint16_t local_port, const char *authority, size_t authority_len, const char *path, size_t path_len,
                           struct atsk_py_endpoint *out, uint32_t room);

/* An active check's verdict on one endpoint: it is left out of picks for the next `hold_ms`, or with 0 no longer; a verdict that is not renewed
 * ends by itself, and neither ends what attempts say, nor is ended by it.  The controller's thread, no commit open.  `addr`: 16 bytes, IPv4
 * in the first 4.  ATSK_OK; ATSK_MISS: no such service, or no such endpoint in it; ATSK_E_RANGE: family, port 0, more than an hour;
 * ATSK_E_STATE: a commit is open. */
int atsk_py_endpoint_probed(uint64_t service_id, const uint8_t *addr, uint8_t family, uint16_t port, uint32_t hold_ms);

/* What the access log calls a published service, "name:port" (1..320 bytes): given once.  The controller's thread, no commit open.  ATSK_OK;
 * ATSK_MISS: no such service; ATSK_E_RANGE, ATSK_E_STATE, ATSK_E_NOMEM. */
int atsk_py_service_label(uint64_t service_id, const char *label, size_t label_len);

struct atsk_py_ejected {
  uint64_t service_id;
  uint32_t n_eligible;
  uint32_t n_ejected; /* of those, by attempts or checks */
};
/* Services with endpoints that are left out just now.  Writes at most `room`, returns how many there are; none while a commit is open.  The
 * controller's thread. */
uint32_t atsk_py_ejected(struct atsk_py_ejected *out, uint32_t room);

/* --- options that the request path needs ------------------------------------------------------------------------------------ */

struct atsk_py_network {
  uint8_t addr[16]; /* network order; IPv4 in the first 4, the rest 0 */
  uint8_t family;   /* 4 or 6 */
  uint8_t bits;     /* leading bits that count */
};

struct atsk_py_settings {
  const char *health_path; /* --health-path, normalised: starts with '/', at most 255 bytes */
  size_t health_path_len;
  const struct atsk_py_network *trusted; /* --trusted-proxies, at most 256 */
  size_t n_trusted;
  uint32_t start_timeout_ms;     /* --start-timeout-ms, 1..600000: how long ATS's start waits for the first table */
  uint32_t connect_timeout_ms;   /* --connect-timeout-ms, 1..600000 */
  uint32_t load_balance;         /* --load-balance, enum atsk_balance: 1..4 */
  uint32_t retry_tries;          /* --retry-tries, 1..8 */
  uint32_t retry_timeout_ms;     /* --retry-timeout-ms; 0: no bound */
  uint32_t retry_budget_percent; /* --retry-budget-percent, 0..100 */
  uint32_t read_timeout_ms;      /* --read-timeout-ms; 0: none, as of the next two */
  uint32_t send_timeout_ms;      /* --send-timeout-ms */
  uint32_t request_timeout_ms;   /* --request-timeout-ms */
  uint32_t health_max_failures;  /* --health-max-failures, 0..1000 */
  uint32_t health_ejection_ms;   /* --health-ejection-ms, 1..600000 */
  uint32_t health_panic_percent; /* --health-panic-percent, 0..100 */
  uint64_t body_size;            /* --body-size [bytes]; 0: unlimited */
  int cache;                     /* --cache=on */
  int reject_encoded_slash;      /* --reject-encoded-slash */
  int allow_loopback_names;      /* Settings.allow_loopback_endpoints */
  int log_fields;                /* --access-log-fields=on */
};

/* Once, before the first commit is published; copies.  ATSK_E_RANGE, ATSK_E_STATE (a second time, or too late). */
int atsk_py_settings(const struct atsk_py_settings *settings);

/* The health path from now on, as that of the settings.  The controller's thread.  Copies, and waits for the requests that are being decided.
 * ATSK_E_RANGE. */
int atsk_py_health_path(const char *path, size_t len);

/* --- logging, counters, the host process ---------------------------------------------------------------------------------- */
/* 0 debug, 1 info, 2 warning, 3 error; releases nothing, keeps nothing */
void atsk_py_log(int level, const char *line, size_t len);
uint32_t atsk_py_counters(void); /* how many counters there are */
uint64_t atsk_py_counter(uint32_t counter, const char **name, const char **label);
int atsk_py_should_stop(void);    /* 1 once ATS is shutting down */
int atsk_py_wait(int timeout_ms); /* waits for atsk_py_wake, a stop, or the time; 1: stop. Releases the GIL */
void atsk_py_wake(void);          /* ends the controller's wait; any thread, never blocks */
void atsk_py_trim(void);          /* gives back to the system what loading has left in the heap */
void atsk_py_first_table(void);   /* a first table is published (or never will be: see status text) */
/* what the health path answers; readiness never goes back by itself */
void atsk_py_health(int ready, const char *reason, size_t reason_len);
size_t atsk_py_server_ports(char *out, size_t room); /* proxy.config.http.server_ports, as ATS has it; bytes it has */
int atsk_py_draining(void);                          /* 1 while ATS drains (proxy.node.config.draining) */

/* --- Traffic Server's own configuration records: ats_records.h tells what each does; the controller's thread ------------------- */
struct atsk_py_record {
  int type; /* enum atsk_record_type */
  int is_dynamic;
  int is_writable;
  int is_null;
  int source;
  char expression[256]; /* NUL-terminated, as `value` */
  char value[4096];
};
const char *atsk_py_records_unavailable(void); /* NULL: they can be set; else why not */
int atsk_py_record_read(const char *name, struct atsk_py_record *out);
int atsk_py_record_write(const char *name, int type, const char *value, int source);
