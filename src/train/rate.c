/* Learning rates in fixed point. */
#include "train/rate.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const curves[] = {"steps", "linear", "cosine", "one-cycle", NULL};

enum {
  CYCLE_RISE = 25,
  CYCLE_FALL = 250000,
  CYCLE_WARM_UP = 300000
}; /* one-cycle: first and last rate as parts of the highest */

/* cos(pi i / 512) with 30 fraction bits, rounded to nearest; computed with Python's decimal module at 60 digits. */
/* clang-format off */
static const int32_t cosines[257] = {
    1073741824, 1073721611, 1073660973, 1073559913, 1073418433, 1073236540, 1073014240, 1072751542, 1072448455, 1072104991,
    1071721163, 1071296985, 1070832474, 1070327646, 1069782521, 1069197120, 1068571464, 1067905576, 1067199483, 1066453210,
    1065666786, 1064840240, 1063973603, 1063066909, 1062120190, 1061133483, 1060106826, 1059040255, 1057933813, 1056787540,
    1055601479, 1054375676, 1053110176, 1051805027, 1050460278, 1049075980, 1047652185, 1046188946, 1044686319, 1043144360,
    1041563127, 1039942680, 1038283080, 1036584389, 1034846671, 1033069992, 1031254418, 1029400018, 1027506862, 1025575020,
    1023604567, 1021595575, 1019548121, 1017462281, 1015338134, 1013175761, 1010975242, 1008736660, 1006460100, 1004145648,
    1001793390, 999403415, 996975812, 994510675, 992008094, 989468165, 986890984, 984276646, 981625251, 978936898, 976211688,
    973449725, 970651112, 967815955, 964944360, 962036435, 959092290, 956112036, 953095785, 950043650, 946955747, 943832191,
    940673101, 937478595, 934248793, 930983817, 927683790, 924348837, 920979082, 917574653, 914135678, 910662286, 907154608,
    903612776, 900036924, 896427186, 892783698, 889106597, 885396022, 881652112, 877875009, 874064853, 870221790, 866345964,
    862437520, 858496606, 854523370, 850517961, 846480531, 842411232, 838310216, 834177638, 830013654, 825818421, 821592095,
    817334838, 813046808, 808728167, 804379079, 799999706, 795590213, 791150767, 786681534, 782182683, 777654384, 773096806,
    768510122, 763894504, 759250125, 754577161, 749875788, 745146182, 740388522, 735602987, 730789757, 725949013, 721080937,
    716185713, 711263525, 706314559, 701339000, 696337036, 691308855, 686254647, 681174602, 676068911, 670937767, 665781362,
    660599890, 655393548, 650162530, 644907034, 639627258, 634323400, 628995660, 623644239, 618269338, 612871159, 607449906,
    602005783, 596538995, 591049748, 585538248, 580004702, 574449320, 568872310, 563273883, 557654248, 552013618, 546352205,
    540670223, 534967884, 529245404, 523502998, 517740883, 511959275, 506158392, 500338453, 494499676, 488642281, 482766489,
    476872522, 470960600, 465030947, 459083786, 453119340, 447137835, 441139496, 435124548, 429093217, 423045732, 416982319,
    410903207, 404808624, 398698801, 392573967, 386434353, 380280190, 374111709, 367929144, 361732726, 355522689, 349299266,
    343062693, 336813204, 330551034, 324276419, 317989595, 311690799, 305380268, 299058239, 292724951, 286380643, 280025552,
    273659918, 267283981, 260897982, 254502159, 248096755, 241682010, 235258165, 228825464, 222384147, 215934457, 209476638,
    203010932, 196537583, 190056834, 183568930, 177074115, 170572633, 164064728, 157550647, 151030634, 144504935, 137973796,
    131437462, 124896179, 118350194, 111799753, 105245103, 98686491, 92124163, 85558366, 78989349, 72417357, 65842639, 59265442,
    52686014, 46104602, 39521455, 32936819, 26350943, 19764076, 13176464, 6588356, 0};
/* clang-format on */

/* cos(pi done / all) with 30 fraction bits, 0 <= done <= all. */
static int64_t cosine(int64_t done, int64_t all) {
  const int64_t angle = (done << 17) / all, folded = angle <= 1 << 16 ? angle : (1 << 17) - angle;
  const int64_t i = folded >> 8, rest = folded & 255;
  const int64_t value = i == 256 ? 0 : cosines[i] + (((cosines[i + 1] - cosines[i]) * rest) >> 8);
  return angle <= 1 << 16 ? value : -value;
}

/* From `from` to `to`, half a cosine. */
static int64_t anneal(int64_t from, int64_t to, int64_t done, int64_t all) {
  const int64_t share = ((int64_t)1 << 30) + cosine(done, all), d = from - to; /* of 2^31 */
  const int64_t high = d >> 31, low = d - high * ((int64_t)1 << 31);           /* d * share can exceed 63 bits */
  return to + high * share + ((low * share) >> 31);
}

/* The ranges of the public functions. */
static bool is_way(int64_t from, int64_t to, int64_t done, int64_t all) {
  const int64_t most = INT64_C(1000000000000);
  return from >= 0 && from <= most && to >= 0 && to <= most && all >= 1 && all <= UINT32_MAX && done >= 0 && done <= all;
}

int64_t niti_rate_along_cosine(int64_t from, int64_t to, int64_t done, int64_t all) {
  return is_way(from, to, done, all) ? anneal(from, to, done, all) : 0;
}

NitiStatus niti_rate_read(NitiRate *out, const NitiYaml *update) {
  static const char *const positions[] = {"epoch", "step", "at", NULL};
  const int64_t most = (int64_t)1000 * 1000000000;
  const NitiYaml *node;
  int32_t choice = 0;
  if ((node = niti_yaml_get(update, "schedule")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "update: schedule", curves));
    out->curve = (NitiRateCurve)choice;
    if (out->curve == NITI_RATE_ONE_CYCLE) out->warmup = (NitiPosition){NITI_POSITION_SHARE, CYCLE_WARM_UP};
  }
  if ((node = niti_yaml_get(update, "lr")) != NULL) {
    if (out->curve != NITI_RATE_STEPS && node->kind == NITI_YAML_SEQUENCE)
      return niti_yaml_fail(node, "update: lr: a list with schedule %s (expected the highest rate)", curves[out->curve]);
    NITI_TRY(niti_schedule_read(&out->points, node, "update: lr", "lr", NITI_RATE_PLACES, most));
  }
  if ((node = niti_yaml_get(update, "final_lr")) != NULL) {
    if (out->curve != NITI_RATE_LINEAR && out->curve != NITI_RATE_COSINE)
      return niti_yaml_fail(node, "update: final_lr: only schedules linear and cosine have one");
    NITI_TRY(niti_yaml_decimal(&out->last, node, "update: final_lr", NITI_RATE_PLACES, 0, most));
  }
  if ((node = niti_yaml_get(update, "warmup")) == NULL) return NITI_OK;
  NITI_TRY(niti_yaml_want_mapping(node, "update: warmup"));
  NITI_TRY(niti_yaml_want_keys(node, "update: warmup", positions));
  return niti_position_read(&out->warmup, node, "update: warmup");
}

void niti_rate_write(NitiYamlDocument *document, NitiYaml *update, const NitiRate *rate) {
  NitiYaml *warmup = niti_yaml_mapping(document);
  char text[32];
  niti_yaml_put(document, update, "schedule", niti_yaml_scalar(document, curves[rate->curve]));
  if (rate->curve == NITI_RATE_STEPS) {
    niti_yaml_put(document, update, "lr", niti_schedule_write(document, &rate->points, "lr", NITI_RATE_PLACES));
  } else {
    niti_yaml_decimal_text(text, sizeof text, rate->points.points[0].value, NITI_RATE_PLACES);
    niti_yaml_put(document, update, "lr", niti_yaml_scalar(document, text));
  }
  if (rate->curve == NITI_RATE_LINEAR || rate->curve == NITI_RATE_COSINE) {
    niti_yaml_decimal_text(text, sizeof text, rate->last, NITI_RATE_PLACES);
    niti_yaml_put(document, update, "final_lr", niti_yaml_scalar(document, text));
  }
  niti_position_put(document, warmup, rate->warmup);
  niti_yaml_put(document, update, "warmup", warmup);
}

NitiStatus niti_rate_place(NitiRate *rate, int64_t steps_per_epoch, int64_t steps) {
  char text[NITI_POSITION_MAX];
  NITI_TRY(niti_schedule_place(&rate->points, "update: lr", steps_per_epoch, steps));
  rate->warm = niti_position_step(rate->warmup, steps_per_epoch, steps);
  rate->steps = steps;
  if (rate->warm < steps || rate->warm == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT,
                   "update: warmup: %s is step %" PRId64 " of this run of %" PRId64
                   " steps (expected an earlier one: "
                   "train longer, or shorten it, e.g. with --set 'update.warmup={at: 5%%}')",
                   niti_position_text(text, rate->warmup), rate->warm, steps);
}

/* floor(whole * done / all): whole from 0 to 10^12, done <= all < 2^32. */
static int64_t part_of(int64_t whole, int64_t done, int64_t all) {
  return whole / all * done + (int64_t)((uint64_t)(whole % all) * (uint64_t)done / (uint64_t)all);
}

static int64_t line(int64_t from, int64_t to, int64_t done, int64_t all) {
  return from >= to ? from - part_of(from - to, done, all) : from + part_of(to - from, done, all);
}

int64_t niti_rate_along_line(int64_t from, int64_t to, int64_t done, int64_t all) {
  return is_way(from, to, done, all) ? line(from, to, done, all) : 0;
}

int64_t niti_rate_in_warmup(int64_t rate, int64_t step, int64_t warmup) {
  return is_way(0, rate, step, warmup) && step < warmup ? part_of(rate, step + 1, warmup) : 0;
}

static int64_t curve_value(const NitiRate *rate, int64_t step, int64_t done, int64_t all) {
  const int64_t highest = rate->points.points[0].value;
  switch (rate->curve) {
    case NITI_RATE_LINEAR: return line(highest, rate->last, done, all);
    case NITI_RATE_COSINE: return anneal(highest, rate->last, done, all);
    case NITI_RATE_ONE_CYCLE: return anneal(highest, highest / CYCLE_FALL, done, all);
    default: return niti_schedule_value(&rate->points, step);
  }
}

int64_t niti_rate_value(const NitiRate *rate, int64_t step) {
  const int64_t all = rate->steps - rate->warm;
  if (step >= rate->warm) return curve_value(rate, step, step - rate->warm < all ? step - rate->warm : all, all > 0 ? all : 1);
  if (rate->curve == NITI_RATE_ONE_CYCLE) {
    const int64_t highest = rate->points.points[0].value;
    return anneal(highest / CYCLE_RISE, highest, step, rate->warm);
  }
  return part_of(curve_value(rate, step, 0, all), step + 1, rate->warm);
}

const char *niti_rate_depends_on_length(const NitiRate *rate) {
  static const char *const clauses[] = {[NITI_RATE_LINEAR] = "update.schedule is linear, a curve over the whole run",
                                        [NITI_RATE_COSINE] = "update.schedule is cosine, a curve over the whole run",
                                        [NITI_RATE_ONE_CYCLE] = "update.schedule is one-cycle, a curve over the whole run"};
  if (rate->curve != NITI_RATE_STEPS) return clauses[rate->curve];
  if (niti_schedule_has_share(&rate->points)) return "update.lr has positions in shares of the run";
  const bool share = rate->warmup.unit == NITI_POSITION_SHARE && rate->warmup.value > 0;
  return share ? "update.warmup is a share of the run" : NULL;
}
