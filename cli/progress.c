/* A line that says how far the work is. */
#include <inttypes.h>

#include "cli.h"
#include "platform/clock.h"
#include "platform/text.h"

static const int64_t second = 1000000000;

void progress_start(ProgressLine *line) {
  /* a first line at once on a terminal, after a second elsewhere */
  *line = (ProgressLine){.terminal = terminal_can_redraw(), .drawn = niti_clock_now() - second};
}

bool progress_is_due(ProgressLine *line, int64_t pause) {
  const int64_t now = niti_clock_now();
  if (now - line->drawn < (line->terminal ? second / 10 : pause)) return false;
  line->drawn = now;
  return true;
}

void progress_draw(ProgressLine *line, const char *text) {
  char shown[1024];
  const size_t columns = line->terminal ? (size_t)terminal_columns() : sizeof shown;
  (void)niti_text_escape(shown, columns < sizeof shown ? columns : sizeof shown, text, false);
  fprintf(stderr, line->terminal ? "\r\033[K%s" : "%s\n", shown);
  fflush(stderr);
  line->open = line->terminal;
}

void progress_data(ProgressLine *line, const char *what, int64_t done, int64_t all) {
  char text[1024], of[32] = "";
  if (!progress_is_due(line, (line->begun ? 30 : 2) * second)) return;
  line->begun = true;
  if (all > 0) (void)snprintf(of, sizeof of, " of %" PRId64, all);
  (void)snprintf(text, sizeof text, "niti: %s: %" PRId64 "%s", what, done, of);
  progress_draw(line, text);
}

void progress_clear(ProgressLine *line) {
  if (line->open) fputs("\r\033[K", stderr);
  line->open = false;
}
