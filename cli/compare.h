/* The ranks of a run need the same options. */
#ifndef NITI_CLI_COMPARE_H
#define NITI_CLI_COMPARE_H

#include "cli.h"
#include "ranks/ranks.h"

/* Fails on every rank, naming two ranks and the first option that differs, where not all have the same values of a command's
 * options (those that a rank may have of its own aside), or not all have a recipe. To be called before the ranks exchange
 * anything else, since what they exchange depends on the options. */
NitiStatus options_compare(NitiRanks *ranks, const Option *options, const void *given, bool recipe);

#endif
