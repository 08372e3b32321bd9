/* Integer softmax cross-entropy: the delta of the logits. */
#ifndef NITI_RT_LOSS_H
#define NITI_RT_LOSS_H

#include "niti_rt.h"

/* round(2^(i/256) * 2^30). */
/* clang-format off */
static const uint32_t rt_exp2_table[257] = {
  1073741824u, 1076653033u, 1079572136u, 1082499153u, 1085434106u, 1088377016u, 1091327906u, 1094286796u,
  1097253708u, 1100228665u, 1103211687u, 1106202798u, 1109202018u, 1112209370u, 1115224875u, 1118248556u,
  1121280436u, 1124320536u, 1127368878u, 1130425485u, 1133490379u, 1136563583u, 1139645120u, 1142735011u,
  1145833280u, 1148939949u, 1152055042u, 1155178580u, 1158310587u, 1161451085u, 1164600099u, 1167757650u,
  1170923762u, 1174098458u, 1177281762u, 1180473697u, 1183674286u, 1186883552u, 1190101520u, 1193328213u,
  1196563654u, 1199807867u, 1203060876u, 1206322705u, 1209593378u, 1212872918u, 1216161350u, 1219458698u,
  1222764986u, 1226080238u, 1229404479u, 1232737732u, 1236080024u, 1239431376u, 1242791816u, 1246161366u,
  1249540052u, 1252927899u, 1256324931u, 1259731174u, 1263146652u, 1266571390u, 1270005413u, 1273448747u,
  1276901417u, 1280363448u, 1283834865u, 1287315695u, 1290805962u, 1294305692u, 1297814910u, 1301333643u,
  1304861917u, 1308399756u, 1311947188u, 1315504238u, 1319070932u, 1322647296u, 1326233356u, 1329829140u,
  1333434672u, 1337049980u, 1340675091u, 1344310030u, 1347954824u, 1351609500u, 1355274085u, 1358948606u,
  1362633090u, 1366327563u, 1370032052u, 1373746586u, 1377471191u, 1381205894u, 1384950723u, 1388705706u,
  1392470869u, 1396246240u, 1400031848u, 1403827719u, 1407633882u, 1411450365u, 1415277195u, 1419114401u,
  1422962010u, 1426820052u, 1430688553u, 1434567544u, 1438457051u, 1442357104u, 1446267730u, 1450188960u,
  1454120821u, 1458063343u, 1462016553u, 1465980482u, 1469955159u, 1473940611u, 1477936870u, 1481943963u,
  1485961921u, 1489990772u, 1494030547u, 1498081275u, 1502142985u, 1506215708u, 1510299473u, 1514394310u,
  1518500250u, 1522617322u, 1526745556u, 1530884983u, 1535035634u, 1539197537u, 1543370725u, 1547555228u,
  1551751076u, 1555958300u, 1560176931u, 1564406999u, 1568648537u, 1572901575u, 1577166143u, 1581442275u,
  1585730000u, 1590029350u, 1594340357u, 1598663052u, 1602997467u, 1607343634u, 1611701585u, 1616071351u,
  1620452965u, 1624846459u, 1629251865u, 1633669214u, 1638098541u, 1642539877u, 1646993254u, 1651458706u,
  1655936265u, 1660425963u, 1664927835u, 1669441912u, 1673968228u, 1678506817u, 1683057710u, 1687620943u,
  1692196547u, 1696784557u, 1701385007u, 1705997930u, 1710623359u, 1715261330u, 1719911875u, 1724575029u,
  1729250827u, 1733939301u, 1738640488u, 1743354420u, 1748081133u, 1752820662u, 1757573041u, 1762338305u,
  1767116489u, 1771907628u, 1776711757u, 1781528911u, 1786359126u, 1791202437u, 1796058879u, 1800928489u,
  1805811301u, 1810707353u, 1815616678u, 1820539314u, 1825475297u, 1830424663u, 1835387448u, 1840363688u,
  1845353420u, 1850356681u, 1855373507u, 1860403934u, 1865448001u, 1870505744u, 1875577199u, 1880662405u,
  1885761398u, 1890874216u, 1896000896u, 1901141476u, 1906295993u, 1911464486u, 1916646992u, 1921843549u,
  1927054196u, 1932278970u, 1937517909u, 1942771053u, 1948038440u, 1953320108u, 1958616096u, 1963926443u,
  1969251188u, 1974590370u, 1979944027u, 1985312200u, 1990694927u, 1996092249u, 2001504204u, 2006930832u,
  2012372174u, 2017828268u, 2023299156u, 2028784876u, 2034285470u, 2039800978u, 2045331439u, 2050876895u,
  2056437387u, 2062012954u, 2067603638u, 2073209480u, 2078830522u, 2084466803u, 2090118366u, 2095785251u,
  2101467502u, 2107165158u, 2112878262u, 2118606857u, 2124350982u, 2130110682u, 2135885998u, 2141676973u,
  2147483648u
};
/* clang-format on */

RT_UNUSED static uint32_t rt_exp2(uint32_t f) {
  const uint32_t i = f >> 8, rest = f & 255u;
  return rt_exp2_table[i] + (((rt_exp2_table[i + 1] - rt_exp2_table[i]) * rest) >> 8);
}

typedef struct rt_loss {
  uint32_t logits, delta;
  uint16_t el, ed;
  int32_t classes, softmax; /* softmax: 0: loss `niti` */
  rt_rounding rounding;
} rt_loss;

/* A logit in base 2 with 16 fraction bits. */
RT_UNUSED static int64_t rt_base2(int8_t m, int32_t exponent) {
  const int64_t t = (int64_t)m * 94548;
  if (exponent > 0) return t * ((int64_t)1 << (exponent > 16 ? 16 : exponent));
  return t >> (exponent < -40 ? 40 : -exponent);
}

RT_UNUSED static int64_t rt_top(const int8_t *logits, int32_t exponent, int32_t classes) {
  int8_t top = logits[0];
  int32_t j;
  for (j = 1; j < classes; ++j) top = logits[j] > top ? logits[j] : top;
  return rt_base2(top, exponent);
}

/* The weight p of a class whose logit is d <= 0 from the largest. */
RT_UNUSED static uint32_t rt_class_weight(const rt_loss *o, int64_t d) {
#ifdef RT_SOFTMAX
  if (o->softmax) {
    const int64_t whole = -(d >> 16);
    return rt_exp2((uint32_t)(d & 65535)) >> (whole > 31 ? 31 : whole);
  }
#endif
  (void)o;
  {
    const int64_t s = d + (10 << 16);
    return s <= 0 ? 0u : (rt_exp2((uint32_t)(s & 65535)) >> (14 - (s >> 16))) - 65536u;
  }
}

/* floor(p * 2^bits / sum), p <= sum, bit by bit. */
RT_UNUSED static uint32_t rt_share(uint32_t p, uint64_t sum, int32_t bits) {
  uint32_t q = p == sum ? 1u : 0u;
  uint64_t rest = p == sum ? 0u : p;
  for (; bits > 0; --bits) {
    const uint32_t one = 2 * rest >= sum ? 1u : 0u;
    rest = 2 * rest - (one ? sum : 0u);
    q = 2 * q + one;
  }
  return q;
}

RT_UNUSED static uint64_t rt_class_sum(const rt_loss *o, const int8_t *logits, int32_t exponent, int64_t top) {
  uint64_t sum = 0;
  int32_t j;
  for (j = 0; j < o->classes; ++j) sum += rt_class_weight(o, rt_base2(logits[j], exponent) - top);
  return sum;
}

#ifdef RT_SOFTMAX
/* What the pass over loss `softmax` needs besides. */
typedef struct rt_loss_call {
  const rt_loss *loss;
  const uint16_t *labels;
} rt_loss_call;

/* Loss `softmax`: accumulators at exponent -24. */
RT_UNUSED static void rt_softmax_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_loss_call *call = operation;
  const rt_loss *o = call->loss;
  const int32_t exponent = r->exponents[o->el];
  uint32_t index = 0;
  int32_t n, j;
  for (n = 0; n < r->n; ++n) {
    const int8_t *logits = rt_at(r, o->logits) + n * o->classes;
    const int64_t top = rt_top(logits, exponent, o->classes);
    const uint64_t sum = rt_class_sum(o, logits, exponent, top);
    for (j = 0; j < o->classes; ++j) {
      const uint32_t share = rt_share(rt_class_weight(o, rt_base2(logits[j], exponent) - top), sum, 24);
      rt_put(k, index++, (int32_t)share - (j == call->labels[n] ? 1 << 24 : 0));
    }
  }
}

#else
RT_UNUSED static void rt_loss_niti_image(const rt *r, const rt_loss *o, int32_t n, int32_t target) {
  const int32_t exponent = r->exponents[o->el];
  const int8_t *logits = rt_at(r, o->logits) + n * o->classes;
  int8_t *delta = rt_at(r, o->delta) + n * o->classes;
  const int64_t top = rt_top(logits, exponent, o->classes);
  const uint64_t sum = rt_class_sum(o, logits, exponent, top);
  rt_rounding rounding = {RT_STOCHASTIC, RT_DRAW_LOSS, 0};
  const rt_stream stream = rt_stream_of(r, &rounding);
  int32_t j, total = 0, own = 0;
  for (j = 0; j < o->classes; ++j) {
    const int32_t g = (int32_t)rt_share(rt_class_weight(o, rt_base2(logits[j], exponent) - top), sum, 11);
    total += g;
    if (j == target) own = g;
    delta[j] = rt_round(g, 4, RT_STOCHASTIC, rt_word(&stream, (uint32_t)(n * o->classes + j)));
  }
  delta[target] = rt_round(own - total, 4, RT_STOCHASTIC, rt_word(&stream, (uint32_t)(n * o->classes + target)));
}

#endif

/* The delta of the logits. Returns whether any of it is not 0: if none is, the step changes no weight. */
RT_UNUSED static int32_t rt_loss_delta(rt *r, const rt_loss *o, const uint16_t *labels) {
  const int32_t count = r->n * o->classes;
  const int8_t *delta = rt_at(r, o->delta);
  int32_t i;
#ifdef RT_SOFTMAX
  rt_loss_call call;
  rt_sink k = rt_plain_sink(r, o->delta);
  call.loss = o;
  call.labels = labels;
  r->exponents[o->ed] = rt_requantise(r, &k, rt_softmax_pass, &call, &o->rounding, (uint32_t)count, NULL) - 24;
#else
  for (i = 0; i < r->n; ++i) rt_loss_niti_image(r, o, i, labels[i]);
  r->exponents[o->ed] = 0;
#endif
  for (i = 0; i < count; ++i) {
    if (delta[i] != 0) return 1;
  }
  return 0;
}

#endif
