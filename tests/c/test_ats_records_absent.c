/* A process that exports no record functions: nothing is called, and the reason is a line that names what is missing. */
#include "controller/ats_records.h"
#include "tap.h"

int
main(void)
{
  struct atsk_record found;
  const char *why = atsk_records_unavailable();
  CHECK(why != NULL && strstr(why, "_Z16RecGetRecordTypePKcP4RecTb") != NULL && strstr(why, "records.config") != NULL &&
          strchr(why, '\n') == NULL,
        "says what is missing and what to do: %s", why);
  CHECK(atsk_record_read("proxy.config.proxy_name", &found) == ATSK_E_STATE, "reads nothing");
  CHECK(atsk_record_write("proxy.config.proxy_name", ATSK_RECORD_STRING, "x", 3) == ATSK_E_STATE, "sets nothing");
  CHECK(atsk_records_unavailable() == why, "for good");
  return tap_end();
}
