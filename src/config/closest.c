/* Edit distance, and the "did you mean" hint based on it. */
#include "config/closest.h"

#include <stdio.h>
#include <string.h>

enum { LENGTH_MAX = 63, CONTAINED_MIN = 3 };

static int least(int a, int b) { return a < b ? a : b; }

/* Row i holds the distances of a's first i letters to each prefix of b; three rows are enough, since a swap looks two back. */
static int distance(const char *a, const char *b) {
  int rows[3][LENGTH_MAX + 1];
  const int m = (int)strlen(a), n = (int)strlen(b);
  for (int j = 0; j <= n; ++j) rows[0][j] = j;
  for (int i = 1; i <= m; ++i) {
    int *row = rows[i % 3];
    const int *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
    row[0] = i;
    for (int j = 1; j <= n; ++j) {
      const int replaced = above[j - 1] + (a[i - 1] != b[j - 1]);
      row[j] = least(replaced, least(above[j], row[j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = least(row[j], above2[j - 2] + 1);
    }
  }
  return rows[m % 3][n];
}

const char *niti_closest(const char *word, const char *const *words) {
  const size_t length = strlen(word);
  const char *found = NULL;
  if (length == 0 || length > LENGTH_MAX) return NULL;
  int best = ((int)length + 2) / 3 + 1;
  for (size_t i = 0; words[i]; ++i) {
    if (strlen(words[i]) > LENGTH_MAX) continue;
    const int edits = distance(word, words[i]);
    if (edits >= best || edits >= (int)length) continue; /* nothing of the word would be left */
    best = edits;
    found = words[i];
  }
  for (size_t i = 0; !found && length >= CONTAINED_MIN && words[i]; ++i) {
    if (strstr(words[i], word)) found = words[i];
  }
  return found;
}

const char *niti_did_you_mean(char buffer[NITI_HINT_MAX], const char *word, const char *const *words) {
  const char *found = niti_closest(word, words);
  buffer[0] = 0;
  if (found) (void)snprintf(buffer, NITI_HINT_MAX, ", did you mean '%s'?", found);
  return buffer;
}
