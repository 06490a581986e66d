"""Which values a later cell finds: one test for each type that is kept, and each that is not."""

import pytest

from go_fixtures import notices, ok, own, shared, toolchain  # noqa: F401

# name: (declarations, statement of the first cell, statement of the second, expression, its text)
KEPT = {
    "bool": ("", "v := false", "v = !v", "v", "true"),
    "int": ("", "v := 40", "v += 2", "v", "42"),
    "int8": ("", "v := int8(-128)", "v++", "v", "-127"),
    "uint64": ("", "v := uint64(math.MaxUint64)", "v--", "v", "18446744073709551614"),
    "uintptr": ("", "v := uintptr(1)", "v++", "v", "2"),
    "float32": ("", "v := float32(0.5)", "v *= 3", "v", "1.5"),
    "float64": ("", "v := math.Inf(-1)", "v = -v", "v", "+Inf"),
    "complex": ("", "v := 1+2i", "v *= 2", "v", "(2+4i)"),
    "string": ("", 'v := "a"', 'v += "é🦀"', "v", "aé🦀"),
    "long_string": ("", 'v := strings.Repeat("ab", 1<<20)', 'v += "!"', "len(v)", "2097153"),
    "string_with_zero": ("", 'v := "a\\x00\\xff"', "v += v", "len(v)", "6"),
    "rune": ("", "v := 'a'", "v++", "string(v)", "b"),
    "array": ("", "v := [3]int{1, 2}", "v[2] = 3", "v", "[1 2 3]"),
    "long_array": ("", "var v [5000]*int", "n := 7; v[4999] = &n", "*v[4999]", "7"),
    "slice": ("", "v := []int{1}", "v = append(v, 2)", "v", "[1 2]"),
    "nil_slice": ("", "var v []int", "w := v == nil; _ = w", "w", "true"),
    "empty_slice": ("", "v := []int{}", "w := v != nil && len(v) == 0; _ = w", "w", "true"),
    "slice_of_nothing": ("", "v := make([]struct{}, 3)", "v = append(v, struct{}{})", "len(v)", "4"),
    "slice_capacity": ("", "v := make([]int, 1, 10)", "w := v[:10]; w[9] = 5", "cap(v)*100 + v[:10][9]", "1005"),
    "slices_of_one_array": ("", "v := []int{1, 2, 3, 4}; w := v[1:3]", "w[0] = 20; w = append(w, 40)", "v", "[1 20 3 40]"),
    "slice_of_slices": ("", "v := [][]string{{`a`}, nil}", "v[1] = v[0]; v[1][0] = `b`", "v", "[[b] [b]]"),
    "map": ("", "v := map[string]int{`a`: 1}", "v[`b`] = 2; delete(v, `a`)", "v", "map[b:2]"),
    "map_of_struct_keys": ("type #K struct{ a, b any }", "v := map[#K]bool{{1, `x`}: true}", "w := v[#K{1, `x`}]; _ = w", "w", "true"),
    "map_of_pointers": ("", "n := 1; v := map[*int]string{&n: `n`}", "w := v[&n]; _ = w", "w", "n"),
    "nil_map": ("", "var v map[string]int", "w := v == nil; _ = w", "w", "true"),
    "map_in_two_variables": ("", "v := map[int]int{}; w := v", "w[1] = 2", "v", "map[1:2]"),
    "map_of_maps": ("", "v := map[string]map[string][]int{`a`: {`b`: {1}}}", "v[`a`][`b`][0]++", "v", "map[a:map[b:[2]]]"),
    "set": ("", "v := map[string]struct{}{`a`: {}}", "v[`b`] = struct{}{}", "len(v)", "2"),
    "nan_keys": ("", "v := map[float64]int{math.NaN(): 1, math.NaN(): 2}", "v[math.NaN()] = 3", "len(v)", "3"),
    "struct": ("type #P struct { Name string; age int; inner struct{ deep []int } }", "v := #P{`a`, 1, struct{ deep []int }{[]int{1}}}", "v.age++; v.inner.deep[0]++", "v", "{Name:a age:2 inner:{deep:[2]}}"),
    "struct_without_name": ("", "v := struct{ X, y int }{1, 2}", "v.y = 3", "v", "{X:1 y:3}"),
    "embedded_struct": ("type #B struct{ n int }; type #D struct{ #B; *strings.Builder }; func (b *#B) inc() { b.n++ }", "v := #D{#B{1}, &strings.Builder{}}", "v.inc(); v.WriteString(`x`)", "v.n*10 + v.Len()", "21"),
    "pointer": ("", "n := 1; v := &n", "*v = 5", "n", "5"),
    "pointer_to_element": ("", "s := []int{1, 2}; v := &s[1]", "*v = 5", "s", "[1 5]"),
    "pointer_to_field": ("type #P struct{ a, b int }", "p := #P{1, 2}; v := &p.b", "*v = 5", "p", "{a:1 b:5}"),
    "pointer_to_pointer": ("", "n := 1; p := &n; v := &p", "**v = 5", "n", "5"),
    "pointer_to_nothing": ("", "v := &struct{}{}", "w := v != nil; _ = w", "w", "true"),
    "shared_pointers": ("type #P struct{ n int }", "v := &#P{1}; w := map[string]*#P{`a`: v}", "w[`a`].n = 9", "v.n", "9"),
    "ring": ("type #N struct{ n int; next *#N }", "v := &#N{1, nil}; v.next = &#N{2, v}", "v.next.next.n = 7", "v.n", "7"),
    "long_list": ("type #N struct{ n int; next *#N }", "var v *#N; for i := range 200_000 { v = &#N{i, v} }", "w := 0; for p := v; p != nil; p = p.next { w++ }", "w", "200000"),
    "interface": ("type #S interface{ Area() int }; type #Q struct{ n int }; func (q #Q) Area() int { return q.n }; type #C struct{ n int }; func (c *#C) Area() int { return c.n }", "v := []#S{#Q{2}, &#C{3}, nil}", "v[1].(*#C).n++", "v[0].Area()*10 + v[1].Area()", "24"),
    "any": ("", "var v any = map[string]any{`a`: []any{1, `x`, 2.5, nil, true}}", "v.(map[string]any)[`b`] = int8(3)", "v", "map[a:[1 x 2.5 <nil> true] b:3]"),
    "typed_nil": ("type #P struct{}", "var v any = (*#P)(nil)", "w, is := v.(*#P); _ = w", "v != nil && is && w == nil", "true"),
    "json": ("", "var v any; json.Unmarshal([]byte(`{\"a\": [1, {\"b\": null}]}`), &v)", "v.(map[string]any)[`c`] = 1", "len(v.(map[string]any))", "2"),
    "generic": ("type #S[T any] struct{ items []T }; func (s *#S[T]) Push(x T) { s.items = append(s.items, x) }", "v := &#S[string]{}; var w any = v; v.Push(`a`)", "w.(*#S[string]).Push(`b`)", "v.items", "[a b]"),
    "named_types": ("type #E int; func (e #E) String() string { return [...]string{`zero`, `one`}[e] }; type #L []#E", "v := #L{0}", "v = append(v, 1)", "v", "[zero one]"),
    "buffered_channel": ("", "v := make(chan string, 3); v <- `a`; v <- `b`", "w := <-v; v <- `c`", "fmt.Sprint(w, len(v), cap(v), <-v)", "a2 3b"),
    "closed_channel": ("", "v := make(chan int, 2); v <- 7; close(v)", "a, more := <-v; b, end := <-v", "fmt.Sprint(a, more, b, end)", "7 true 0 false"),
    "function": ("func #f(n int) int { return n * 2 }", "v := #f", "w := v(4)", "w", "8"),
    "function_of_std": ("", "v := strings.ToUpper", "w := v(`a`)", "w", "A"),
    "function_literal": ("", "n := 1; v := func(d int) int { n += d; return n }", "v(2)", "v(3) + n", "12"),
    "closure": ("func #mk() func() int { n := 0; return func() int { n++; return n } }", "v := #mk(); v(); w := #mk()", "v(); w()", "fmt.Sprint(v(), w())", "3 2"),
    "closures_that_share": ("func #mk() (func(), func() int) { n := 0; return func() { n += 10 }, func() int { return n } }", "v, w := #mk(); v()", "v()", "w()", "20"),
    "method_value": ("type #C struct{ n int }; func (c *#C) inc() int { c.n++; return c.n }", "c := &#C{}; v := c.inc; v()", "v(); c.n += 10", "v()", "13"),
    "method_value_of_std": ("", "b := &strings.Builder{}; v := b.WriteString", "v(`ab`)", "b.String()", "ab"),
    "method_expression": ("type #C struct{ n int }; func (c #C) get() int { return c.n }", "v := #C.get", "w := v(#C{4})", "w", "4"),
    "functions_in_a_map": ("", "v := map[string]func(float64, float64) float64{`add`: func(a, b float64) float64 { return a + b }, `pow`: math.Pow}", "w := v[`add`](1, 2)", "w + v[`pow`](2, 3)", "11"),
    "time": ("", "v := time.Now(); w := v.In(time.FixedZone(`X`, 3600))", "d := time.Since(v)", "d > 0 && d < time.Minute && w.Equal(v)", "true"),
    "time_zone": ("", "v, err := time.LoadLocation(`UTC`); w := time.Date(2024, 1, 2, 3, 4, 5, 0, v)", "w = w.Add(time.Hour)", "w.String() + fmt.Sprint(w.Location() == time.UTC)", "2024-01-02 04:04:05 +0000 UTCtrue"),
    "duration": ("", "v := time.Second", "v *= 90", "v", "1m30s"),
    "big_int": ("", "v := new(big.Int).Exp(big.NewInt(7), big.NewInt(90), nil)", "v.Add(v, big.NewInt(1))", "v.String()[:10]", "1145047759"),
    "big_rat_and_float": ("", "v := big.NewRat(1, 3); w := big.NewFloat(1.5)", "v.Add(v, big.NewRat(1, 3)); w.Add(w, w)", "fmt.Sprint(v, w)", "2/3 3"),
    "error": ("", "v := errors.New(`a`); w := fmt.Errorf(`b: %w`, v)", "x := errors.Is(w, v)", "fmt.Sprint(x, w)", "true b: a"),
    "known_error": ("", "v := error(io.EOF); w := fmt.Errorf(`b: %w`, os.ErrNotExist)", "x := v == io.EOF", "x && errors.Is(w, os.ErrNotExist)", "true"),
    "joined_errors": ("", "v := errors.Join(io.EOF, errors.New(`x`))", "x := errors.Is(v, io.EOF)", "x", "true"),
    "own_error": ("type #E struct{ code int }; func (e *#E) Error() string { return fmt.Sprint(`code `, e.code) }", "var v error = &#E{7}", "var target *#E; found := errors.As(v, &target)", "fmt.Sprint(found, v)", "true code 7"),
    "os_error": ("", "_, v := os.Open(`/no/such/file`)", "w := errors.Is(v, os.ErrNotExist)", "fmt.Sprint(w, v)", "true open /no/such/file: no such file or directory"),
    "strconv_error": ("", "_, v := strconv.Atoi(`x`)", "w := errors.Is(v, strconv.ErrSyntax)", "w", "true"),
    "bytes_buffer": ("", "v := &bytes.Buffer{}; v.WriteString(`abc`)", "v.ReadByte(); v.WriteString(`d`)", "v.String()", "bcd"),
    "strings_builder": ("", "var v strings.Builder; v.WriteString(`a`)", "v.WriteString(`b`)", "v.String()", "ab"),
    "strings_reader": ("", "v := strings.NewReader(`abc`); v.ReadByte()", "w, _ := io.ReadAll(v)", "string(w)", "bc"),
    "bufio_scanner": ("", "v := bufio.NewScanner(strings.NewReader(`a b c`)); v.Split(bufio.ScanWords); v.Scan()", "v.Scan()", "v.Text()", "b"),
    "writer_to_stdout": ("", "v := bufio.NewWriter(os.Stdout); var w io.Writer = os.Stderr", "x := w == os.Stderr", "x && v.Flush() == nil", "true"),
    "logger": ("", "v := log.New(os.Stdout, `p: `, 0)", "v.SetPrefix(`q: `)", "v.Prefix()", "q: "),
    "regexp": ("", "v := regexp.MustCompile(`(a+)(b*)`)", "w := v.FindStringSubmatch(`xaab`)", "w", "[aab aa b]"),
    "list": ("", "v := list.New(); v.PushBack(1); v.PushFront(`a`)", "v.Back().Value = 2", "v.Front().Next().Value", "2"),
    "heap": ("type #H []int; func (h #H) Len() int { return len(h) }; func (h #H) Less(i, j int) bool { return h[i] < h[j] }; func (h #H) Swap(i, j int) { h[i], h[j] = h[j], h[i] }; func (h *#H) Push(x any) { *h = append(*h, x.(int)) }; func (h *#H) Pop() any { o := *h; x := o[len(o)-1]; *h = o[:len(o)-1]; return x }", "v := &#H{5, 2}; heap.Init(v)", "heap.Push(v, 1)", "heap.Pop(v)", "1"),
    "random": ("", "v := rand.New(rand.NewSource(1)); w := rand.New(rand.NewSource(1)); v.Int(); w.Int()", "a := v.Int(); b := w.Int()", "a == b", "true"),
    "mutex": ("", "var v sync.Mutex; v.Lock()", "w := v.TryLock(); v.Unlock()", "!w && v.TryLock()", "true"),
    "once": ("", "var v sync.Once; n := 0; v.Do(func() { n++ })", "v.Do(func() { n++ })", "n", "1"),
    "wait_group": ("", "var v sync.WaitGroup; v.Add(1); v.Done()", "v.Wait()", "1", "1"),
    "sync_map": ("", "var v sync.Map; v.Store(`a`, 1)", "v.Store(`b`, []int{2}); w, _ := v.Load(`a`)", "w", "1"),
    "atomic": ("type #P struct{ n int }", "var v atomic.Int64; v.Add(2); var w atomic.Pointer[#P]; w.Store(&#P{3}); var x atomic.Value; x.Store(`s`)", "v.Add(1)", "fmt.Sprint(v.Load(), w.Load().n, x.Load())", "3 3s"),
    "context": ("type #K struct{}", "v := context.WithValue(context.Background(), #K{}, 5)", "w := v.Value(#K{})", "w", "5"),
    "reflect_type": ("type #P struct{ A int }", "v := reflect.TypeOf(#P{}); w := reflect.TypeOf(1)", "x := v == reflect.TypeOf(#P{})", "x && w.Kind() == reflect.Int && v.Field(0).Name == `A`", "true"),
    "netip": ("", "v := netip.MustParseAddr(`192.0.2.1`); w := netip.MustParsePrefix(`10.0.0.0/8`)", "x := v.Is4() && w.Contains(netip.MustParseAddr(`10.1.1.1`))", "x && v == netip.MustParseAddr(`192.0.2.1`)", "true"),
    "url": ("", "v, _ := url.Parse(`http://u:p@h/x?a=1`)", "v.Path = `/y`", "v.String()", "http://u:p@h/y?a=1"),
    "http_client": ("", "v := &http.Client{Timeout: time.Second}; w := http.DefaultClient; r, _ := http.NewRequest(`GET`, `http://a/`, nil)", "x := w == http.DefaultClient", "x && v.Timeout == time.Second && r.URL.Host == `a`", "true"),
    "hash": ("", "v := sha256.New(); v.Write([]byte(`a`))", "v.Write([]byte(`b`))", "fmt.Sprintf(`%x`, v.Sum(nil))[:8]", "fb8e20fc"),
    "image": ("", "v := image.NewGray(image.Rect(0, 0, 2, 2))", "v.SetGray(1, 1, color.Gray{9})", "v.GrayAt(1, 1).Y", "9"),
    "template": ("", "v := template.Must(template.New(`t`).Parse(`{{.}}!`))", "var b strings.Builder; v.Execute(&b, 5)", "b.String()", "5!"),
    "byte_order": ("", "var v binary.ByteOrder = binary.BigEndian", "w := v.Uint16([]byte{1, 0})", "w", "256"),
    "ticker_free_struct": ("type #P struct{ A int; T *time.Timer }", "v := &#P{A: 1}", "v.A++", "v.A", "2"),
}

# name: (declarations, statement of the first cell, part of the notice, expression, its text)
NOT_KEPT = {
    "open_file": ("", "v, err := os.Open(`/dev/null`)", "v (os.File): an open file", "v == nil", "true"),
    "file_in_a_struct": ("type #P struct{ Name string; F *os.File }", "f, _ := os.Open(`/dev/null`); v := #P{`n`, f}", "v (os.File): an open file", "v.Name + fmt.Sprint(v.F == nil)", "ntrue"),
    "reader_of_a_file": ("", "v := bufio.NewReader(func() io.Reader { f, _ := os.Open(`/dev/null`); return f }())", "v (", "v == nil", "true"),
    "listener": ("", "v, err := net.Listen(`tcp`, `127.0.0.1:0`)", "v (net.TCPListener)", "v == nil", "true"),
    "timer": ("", "v := time.NewTimer(time.Hour)", "v (time.Timer): a timer", "v == nil", "true"),
    "ticker": ("", "v := time.NewTicker(time.Hour)", "v (time.Ticker): a timer", "v == nil", "true"),
    "timer_channel": ("", "v := time.After(time.Hour)", "v (<-chan time.Time)", "v == nil", "true"),
    "process": ("", "c := exec.Command(`true`); c.Start(); v := c.Process; c.Wait()", "(os.Process): a process", "v == nil", "true"),
    "cancelled_context": ("", "v, cancel := context.WithCancel(context.Background())", "cancel (context.CancelFunc)", "cancel == nil && v == nil", "true"),
    "context_with_timer": ("", "v, _ := context.WithTimeout(context.Background(), time.Hour)", "v (", "v == nil", "true"),
    "literal_in_another_package": ("", "v := sync.OnceValue(func() int { return 1 })", "v (func() int): a function literal", "v == nil", "true"),
    "literal_in_a_generic_function": ("func #mk[T any](x T) func() T { return func() T { return x } }", "v := #mk(1)", "v (func() int): a function literal", "v == nil", "true"),
    "instance_of_a_generic_function": ("func #id[T any](x T) T { return x }", "v := #id[int]", "v (func(int) int): a function literal", "v == nil", "true"),
    "local_type": ("func #mk() any { type local struct{ n int }; return local{1} }", "v := #mk()", "local", "v == nil", "true"),
    "private_type": ("", "var v io.Reader = io.LimitReader(strings.NewReader(`x`), 1); w := any(sort.Reverse(sort.IntSlice{1})); x := any(http.FileServer(http.Dir(`/`)))", "x (", "x == nil && w != nil && v != nil", "true"),
    "unsafe_pointer": ("", "n := 1; v := unsafe.Pointer(&n)", "v (unsafe.Pointer): an unsafe.Pointer", "v == nil", "true"),
    "weak_pointer": ("", "n := new(int); v := weak.Make(n)", "v (weak.Pointer[int]): a weak pointer", "v.Value() == nil", "true"),
    "unique_handle": ("", "v := unique.Make(`x`)", "v (unique.Handle[string]): a unique handle", "v == unique.Handle[string]{}", "true"),
    "maphash": ("", "v := maphash.MakeSeed()", "v (maphash.Seed): a seed", "v == maphash.Seed{}", "true"),
    "reflect_value": ("", "v := reflect.ValueOf(1)", "v (reflect.Value): a reflect.Value", "v.IsValid()", "false"),
    "locked_by_a_goroutine": ("", "var v sync.Mutex; c := make(chan int); go func() { v.Lock(); close(c); select {} }(); <-c", "v (sync.Mutex): in use", "v.TryLock()", "true"),
    "waited_for": ("", "var v sync.WaitGroup; v.Add(1); go func() { select {} }()", "v (sync.WaitGroup): in use", "v", "{"),
    "too_private": ("", "v := sql.OpenDB(nil)", "v (", "v == nil", "true"),
    "iterator": ("", "v, stop := iter.Pull(slices.Values([]int{1, 2})); v()", "v (func() (int, bool)): a function literal", "v == nil && stop == nil", "true"),
}

IMPORTS = 'import ("container/heap"; "container/list"; "database/sql"; "encoding/binary"; "encoding/json"; "hash/maphash"; "image/color"; "iter"; "math/rand"; "net"; "text/template"; "unique"; "unsafe"; "weak")'


def fill(text, name):
    return text.replace("#", "T_" + name)


@pytest.mark.parametrize("name", KEPT)
def test_kept(own, name):  # noqa: F811
    declarations, first, second, expression, text = (fill(part, name) for part in KEPT[name])
    run = ok(own.run("\n".join([IMPORTS, declarations, first])))
    assert notices(run) == []
    assert notices(ok(own.run(second))) == []
    run = ok(own.run(expression))
    assert (run.text, notices(run)) == (text, [])


@pytest.mark.parametrize("name", NOT_KEPT)
def test_not_kept(own, name):  # noqa: F811
    declarations, first, notice, expression, text = (fill(part, name) for part in NOT_KEPT[name])
    run = ok(own.run("\n".join([IMPORTS, declarations, first])))
    said = [message for code, message in notices(run) if code == "state_not_kept"]
    assert any(notice in message for message in said), notices(run)
    run = ok(own.run(expression))
    assert run.text.startswith(text)


def test_what_is_not_kept_is_said_once(own):  # noqa: F811
    run = ok(own.run("files := []*os.File{}\nfor range 300 { f, _ := os.Open(`/dev/null`); files = append(files, f) }\nn := 1"))
    assert len(notices(run)) == 1
    run = ok(own.run("n++\nlen(files)"))
    assert (run.text, notices(run)) == ("300", [])


def test_variables_that_nobody_needs_cost_nothing(own):  # noqa: F811
    ok(own.run("big := make([]byte, 64<<20)\nbig[5] = 7\nfor i := range big { big[i] ^= byte(i) }\nn := 1"))
    before = ok(own.run("n++\nn")).events[-1]["cpu_us"]
    assert before < 2_000_000
    assert ok(own.run("int(big[5]) + n")).text == "4"


def test_large_values(own):  # noqa: F811
    ok(own.run("words := map[string]int{}\nfor i := range 300_000 { words[fmt.Sprint(`word`, i)] = i }\nnumbers := make([]float64, 5_000_000)"))
    ok(own.run("words[`one`] = 1\nnumbers[4_999_999] = 2.5"))
    assert ok(own.run("fmt.Sprint(len(words), words[`word299999`], numbers[4_999_999])")).text == "300001 299999 2.5"


def test_many_variables(own):  # noqa: F811
    for cell in range(5):
        ok(own.run("\n".join("v%d_%d := []int{%d}" % (cell, i, i) for i in range(20))))
    total = " + ".join("v%d_%d[0]" % (cell, i) for cell in range(5) for i in range(20))
    assert ok(own.run(total)).text == str(5 * 190)
    for cell in range(40):
        ok(own.run("w%d := %d" % (cell, cell)))
    assert ok(own.run(" + ".join("w%d" % cell for cell in range(40)))).text == str(sum(range(40)))


def test_state_up_to_a_panic(own):  # noqa: F811
    run = own.run("a := 1\nm := map[string]int{`x`: 1}\nm[`x`] = 2\nif a == 1 { panic(`stop`) }\nb := 3")
    assert run.error["name"] == "panic" and run.error["line"] == 4
    assert ok(own.run("a + m[`x`]")).text == "3"
    assert "undefined: b" in own.run("b").error["message"]


def test_state_up_to_a_panic_keeps_what_was_not_reached(own):  # noqa: F811
    ok(own.run("x := 1\ny := 2"))
    own.run("panic(`first`)\nx := `another type`\ny := 3")
    assert ok(own.run("x + y")).text == "3"


def test_state_up_to_an_exit(own):  # noqa: F811
    run = own.run("x := 1\ngo func() { x = 2; os.Exit(4) }()\nselect {}")
    assert (run.error["name"], run.error["message"]) == ("ExitStatus", "exit status 4")
    assert ok(own.run("x")).text == "2"


def test_state_up_to_a_deadlock(own):  # noqa: F811
    run = own.run("x := 1\nvar mu sync.Mutex\nmu.Lock()\nx = 2\nmu.Lock()")
    assert "deadlock" in run.error["message"] and run.error["line"] == 5
    assert ok(own.run("x")).text == "2"


def test_state_of_before_when_the_program_is_killed(own):  # noqa: F811
    ok(own.run("x := 1"))
    run = own.run("x = 2\ny := 3\nsyscall.Kill(os.Getpid(), syscall.SIGKILL)\nselect {}")
    assert run.error["name"] == "Killed"
    assert [code for code, _ in notices(run)] == ["state_not_kept"]
    assert ok(own.run("x")).text == "1"
    assert "undefined: y" in own.run("y").error["message"]


def test_a_type_that_changes(own):  # noqa: F811
    ok(own.run("type P struct { Name string; Age int; tags []string }\np := &P{`Ada`, 36, []string{`x`}}\nall := map[string]P{`a`: *p}"))
    run = ok(own.run("type P struct { Age int; Mail string; Name string; tags []string }\np.Mail = `m`\nfmt.Sprintf(`%+v %+v`, *p, all)"))
    assert run.text == "{Age:36 Mail:m Name:Ada tags:[x]} map[a:{Age:36 Mail: Name:Ada tags:[x]}]"
    assert notices(run) == []
    run = ok(own.run("type P struct { Name []string; Age int }\nfmt.Sprintf(`%+v`, *p)"))
    assert run.text == "{Name:[] Age:36}"
    assert any("only its fields" in message for _, message in notices(run))


def test_goroutines_end_with_their_cell(own):  # noqa: F811
    run = ok(own.run("n := 0\nfor range 3 { go func() { for { time.Sleep(time.Millisecond); n++ } }() }\ntime.Sleep(10 * time.Millisecond)"))
    assert notices(run) == [("goroutines_ended", "3 goroutines were still running and have ended with the cell")]
    first = ok(own.run("n")).text
    assert ok(own.run("n")).text == first


def test_a_channel_that_goroutines_use(own):  # noqa: F811
    ok(own.run("jobs := make(chan int, 5)\nfor i := range 5 { jobs <- i }\ngo func() { for { time.Sleep(time.Hour) } }()"))
    assert ok(own.run("a, b := <-jobs, <-jobs\nfmt.Sprint(a, b, len(jobs))")).text == "0 1 3"
