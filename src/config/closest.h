/* Finds the closest of several words, for "did you mean". */
#ifndef NITI_CONFIG_CLOSEST_H
#define NITI_CONFIG_CLOSEST_H

enum { NITI_HINT_MAX = 96 };

/* The word of a NULL-terminated list that takes the fewest edits to reach from `word` (a letter added, dropped or replaced, or
 * two neighbours swapped: the optimal string alignment distance), at most one per three letters; else the first that contains
 * `word`. NULL: none is close. Ties go to the first. */
const char *niti_closest(const char *word, const char *const *words);
/* ", did you mean 'WORD'?" for messages, or "" where nothing is close; returns buffer. */
const char *niti_did_you_mean(char buffer[NITI_HINT_MAX], const char *word, const char *const *words);

#endif
