/* metrics.csv and metrics.jsonl that a run is continued with, as two fields (fuzz.h) after a byte: the epoch to keep. */
#include "fuzz.h"
#include "io/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const keys[] = {"epoch", "loss"};
  static const char *const left[] = {"metrics.csv", "metrics.jsonl", "metrics.csv.bak", "metrics.jsonl.bak"};
  const NitiField row[] = {niti_field_integer("epoch", 9), niti_field_ratio("loss", 1, 3, 4)};
  const uint8_t *csv, *json;
  NitiLog *log;
  if (size < 1) return 0;
  const int64_t keep = (int8_t)*data++;
  --size;
  const size_t csv_bytes = fuzz_field(&csv, &data, &size), json_bytes = fuzz_field(&json, &data, &size);
  (void)fuzz_put(left[0], csv, csv_bytes);
  (void)fuzz_put(left[1], json, json_bytes);
  if (fuzz_status(niti_log_open(&log, fuzz_dir(), keep < -1 ? -1 : keep, keys, 2)) == NITI_OK) {
    for (size_t i = 0; niti_log_note(log, i); ++i) FUZZ_CHECK(!strchr(niti_log_note(log, i), '\n'));
    FUZZ_CHECK(niti_log_row(log, row, 2) == NITI_OK);
    niti_log_close(log);
  }
  for (int i = 0; i < 4; ++i) (void)niti_system.unlink(fuzz_at(left[i]));
  return 0;
}
