/** The page's texts, in English and Chinese. */

import { $, label } from "./dom.js";
import { load, save } from "./state.js";

const WORDS = {
  skip: ["Skip to results", "跳到结果"],
  placeholder: ["灰猫, a red car, dog - snow …", "灰猫、雪地里的狗、a red car……"],
  query: ["Search pictures", "搜索图片"],
  search: ["Search", "搜索"],
  pick: ["Search by a picture", "以图搜图"],
  filter: ["Filters", "筛选"],
  keys: ["Help and keys", "帮助与快捷键"],
  keysTitle: ["Keys", "快捷键"],
  theme: ["Light or dark", "浅色或深色"],
  themeIs: [{ auto: "As the system", light: "Light", dark: "Dark" }, { auto: "跟随系统", light: "浅色", dark: "深色" }],
  lang: ["中文", "English"],
  home: ["Start", "首页"],
  folder: ["Folder", "文件夹"],
  after: ["Taken from", "拍摄于（起）"],
  before: ["Taken until", "拍摄于（止）"],
  shape: ["Shape", "方向"],
  any: ["Any", "不限"],
  landscape: ["Landscape", "横向"],
  portrait: ["Portrait", "纵向"],
  square: ["Square", "方形"],
  width: ["Min. width (px)", "最小宽度（像素）"],
  sure: ["Min. confidence", "最低把握"],
  sureAny: ["any", "不限"],
  where: ["Filter as text", "筛选条件"],
  clear: ["Clear", "清除"],
  drop: ["Drop a picture to search by it", "松开以图搜图"],
  welcome: ["{n} pictures. Search by words, or by a picture.", "共 {n} 张图片。用文字或一张图片来搜索。"],
  found: ["{n} of {all} pictures, best first", "按相关度排列，已显示 {n} 张，共 {all} 张"],
  browsed: ["{n} of {all} pictures, newest first", "按拍摄时间排列，新的在前，已显示 {n} 张，共 {all} 张"],
  searching: ["Searching …", "搜索中……"],
  loading: ["Loading the model …", "正在加载模型……"],
  nothing: ["No picture matches “{q}”", "没有与“{q}”相符的图片"],
  nothingWhy: ["The chance that one does is {p}.", "存在相符图片的可能性为 {p}。"],
  nearest: ["Show the closest anyway", "仍然显示最接近的"],
  none: ["No picture passes the filter.", "没有图片符合筛选条件。"],
  suggestions: ["The nearest: ", "最接近的："],
  clearFilter: ["Clear the filter", "清除筛选"],
  empty: ["The gallery is empty. Run: soutu index", "图库为空。请运行：soutu index"],
  likely: ["Likely here ({p})", "很可能有：把握 {p}"],
  notSure: ["Not sure ({p})", "不确定有没有：把握 {p}"],
  unlikely: ["Probably no match ({p}). The closest pictures:", "很可能没有相符的图片（把握 {p}）。最接近的是："],
  agree: ["Variants agree ({a})", "各变体意思一致（{a}）"],
  disagree: ["Variants mean different things ({a}): switch some off", "各变体意思不一（{a}）：可关掉一些"],
  variants: ["Searched for", "实际搜索"],
  reset: ["As proposed", "恢复默认"],
  less: ["Count “{t}” less", "降低“{t}”的权重"],
  morew: ["Count “{t}” more", "提高“{t}”的权重"],
  source: [{ original: "as typed", rules: "rule", "built-in": "built-in rule", lexicon: "lexicon", translation: "translation", llm: "language model", template: "template", chosen: "added" }, { original: "原文", rules: "规则", "built-in": "内置规则", lexicon: "词库", translation: "翻译", llm: "语言模型", template: "模板", chosen: "自选" }],
  unused: [{ "not-read": "the model does not read this language", "not-needed": "the model reads the query as it stands", "too-many": "others count more", "switched-off": "switched off" }, { "not-read": "模型不懂这种语言", "not-needed": "模型能直接读懂原文", "too-many": "其他变体更重要", "switched-off": "已关闭" }],
  similar: ["Similar pictures", "相似图片"],
  likeThis: ["Like this picture", "与此图相似"],
  remove: ["Remove", "移除"],
  select: ["Select", "选择"],
  selected: ["{n} selected", "已选 {n} 张"],
  copy: ["Copy paths", "复制路径"],
  copied: ["Copied", "已复制"],
  txt: ["Text", "文本"],
  open: ["Open", "打开"],
  close: ["Close", "关闭"],
  download: ["Download", "下载"],
  prev: ["Previous", "上一张"],
  next: ["Next", "下一张"],
  path: ["Path", "路径"],
  also: ["Also at", "相同内容"],
  size: ["Size", "尺寸"],
  file: ["File", "文件"],
  taken: ["Taken", "拍摄时间"],
  score: ["Score", "得分"],
  cosine: ["Cosine", "余弦相似度"],
  confidence: ["Confidence", "把握"],
  noImage: ["cannot be shown", "无法显示"],
  history: ["Search history", "搜索历史"],
  noHistory: ["Nothing yet.", "暂无记录。"],
  helpTitle: ["How to search", "如何搜索"],
  signin: ["This server requires a token", "此服务器需要令牌"],
  token: ["Token", "令牌"],
  enter: ["Sign in", "登录"],
  signout: ["Sign out", "退出登录"],
  offline: ["You are offline. Retrying when the network is back.", "网络已断开，恢复后自动重试。"],
  gone: ["The server is not responding. Retrying …", "服务器没有响应，正在重试……"],
  busy: ["The server is busy. Retrying in {s} s …", "服务器繁忙，{s} 秒后重试……"],
  error: ["Something went wrong: {m}", "出错了：{m}"],
  notPicture: ["This file cannot be read as a picture.", "无法读取该图片。"],
  examples: [["灰猫", "a red car", "雪地里的狗", "2:butterfly + flower", "cat - tree"], ["灰猫", "雪地里的狗", "红色汽车", "2:蝴蝶 + 花", "猫 - 树"]],
  help: [
    [["灰猫", "Chinese or English, as you would say it"], ["灰猫 + 雪地", "both of them"], ["2:cat + dog", "the first counts twice"], ["cat - tree", "cats without trees"], ["\"a + b\"", "in quotes: just text"]],
    [["灰猫", "中文或英文，怎么说就怎么写"], ["灰猫 + 雪地", "两者都要"], ["2:猫 + 狗", "前者权重加倍"], ["猫 - 树", "有猫、没有树"], ["“a + b”", "引号中为普通文字"]],
  ],
  keyList: [
    [["/", "to the search box"], ["← ↑ → ↓", "from picture to picture"], ["Enter", "open"], ["s", "similar pictures"], ["x / Space", "select"], ["Esc", "close"], ["?", "this"]],
    [["/", "跳到搜索框"], ["← ↑ → ↓", "在图片间移动"], ["Enter", "打开"], ["s", "相似图片"], ["x / 空格", "选择"], ["Esc", "关闭"], ["?", "本帮助"]],
  ],
};

const listeners = [];
export let lang = load("lang") || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

/** The text for `code`, with {names} filled in; "" where there is none. */
export function t(code, fields = {}) {
  const text = WORDS[code]?.[lang === "zh" ? 1 : 0] ?? "";
  if (typeof text !== "string") return text;
  return text.replace(/\{(\w+)\}/g, (_, name) => fields[name] ?? "");
}

export const onLanguage = (listener) => listeners.push(listener);
export const percent = (p) => `${Math.round(p * 100)}%`;
export const fileSize = (n) => (n < 1e6 ? `${Math.ceil(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`);
export const formatCount = (n) => n.toLocaleString(lang === "zh" ? "zh-CN" : "en");

export function setLanguage(next) {
  lang = next;
  save("lang", next);
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const id of ["pick", "filter", "history", "keys", "home"]) label($(id), t(id));
  label($("go"), t("search"));
  $("q").placeholder = t("placeholder");
  $("q").setAttribute("aria-label", t("query"));
  $("chips").setAttribute("aria-label", t("variants"));
  $("lang").textContent = t("lang") === "English" ? "EN" : "中";
  label($("lang"), t("lang"));
  for (const listener of listeners) listener();
}
